"""The report's style sheet: one column, dark text, tables and figures that scroll inside their own box."""

CSS = """
:root { --ink: #1a1a1a; --soft: #555; --line: #d9d9d9; --band: #f5f6f8; --accent: #0072b2; --warn: #8a3b00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; }
main { max-width: 1128px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 40px 0 8px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 22px 0 6px; overflow-wrap: anywhere; }
h4, h5 { font-size: 0.92rem; margin: 16px 0 4px; overflow-wrap: anywhere; }
.links { padding-left: 1.2em; margin: 8px 0; }
p { margin: 8px 0; max-width: 78ch; overflow-wrap: anywhere; }
.facts { color: var(--soft); margin: 0 0 18px; }
.finding { border-left: 4px solid var(--accent); background: var(--band); padding: 12px 16px; margin: 16px 0;
  font-size: 1.06rem; }
.finding p { margin: 6px 0; }
.caution { border-left: 4px solid var(--warn); background: #fdf5ee; padding: 10px 16px; margin: 12px 0; }
.caution p { margin: 4px 0; }
.note { color: var(--soft); font-size: 0.92rem; }
.scroll { overflow-x: auto; margin: 10px 0 4px; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px 6px 0; text-align: right; vertical-align: top; white-space: nowrap; }
th { white-space: normal; font-weight: 600; border-bottom: 2px solid var(--ink); vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td:first-child { white-space: normal; min-width: 11em; max-width: 18em; overflow-wrap: break-word; }
.long { white-space: normal; text-align: left; min-width: 8.5em; max-width: 26em; overflow-wrap: break-word; }
.words td, .words th { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; }
.words td:first-child { padding-right: 22px; color: var(--soft); }
small { display: block; white-space: nowrap; color: var(--soft); font-size: 0.82em; }
small.where { white-space: normal; max-width: 13em; margin-left: auto; }
tr.total td { background: var(--band); font-weight: 600; }
tr.total small { font-weight: 400; }
.swatch { display: inline-block; width: 0.75em; height: 0.75em; margin-right: 0.5em; border-radius: 2px; }
figure { margin: 12px 0 4px; }
figure svg { display: block; width: 100%; height: auto; min-width: 560px; max-width: 860px; }
figure.wide svg { max-width: 1032px; min-width: 680px; }
.small { display: none; }
figcaption { color: var(--soft); font-size: 0.92rem; max-width: 78ch; margin-top: 4px; }
pre { background: var(--band); padding: 12px 14px; overflow-x: auto; font: 0.86rem/1.45 ui-monospace, Menlo, Consolas,
  monospace; margin: 8px 0; }
details { margin: 8px 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
@media (max-width: 560px) { main { padding: 18px 14px 48px; } h1 { font-size: 1.4rem; } body { font-size: 15px; }
  td:first-child { min-width: 7.5em; max-width: 8.5em; } figure svg { min-width: 470px; }
  .large { display: none; } .small { display: block; } figure .small svg { min-width: 0; width: 100%; } }
@media print { .scroll { overflow: visible; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""
