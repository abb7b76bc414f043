"""Data of one's own making: a policy rolled in an environment, by recipe or by hand.

`make_dataset` gives any bundled dataset, made first where its data are not shipped; `collect` rolls a policy.
"""

from offline_robust.collection.cards import dataset_card, policy_card
from offline_robust.collection.collect import collect
from offline_robust.collection.from_recipe import collect_recipe, make_dataset, make_recipe
from offline_robust.collection.own import own_recipe
from offline_robust.collection.recipes import Change, Recipe, RecipePart, load_recipe

__all__ = [
    "Change",
    "Recipe",
    "RecipePart",
    "collect",
    "collect_recipe",
    "dataset_card",
    "load_recipe",
    "make_dataset",
    "make_recipe",
    "own_recipe",
    "policy_card",
]
