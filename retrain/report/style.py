"""The looks of every report: one column on a phone, dark where the reader's system is, plain on paper."""

CSS = """
:root { color-scheme: light; --back: #f6f7f8; --card: #fff; --text: #1a1f24; --soft: #535c66; --line: #d5dae0;
  --accent: #0a58a8; --share-back: #dbe9f8; --warn: #6b4300; --warn-back: #ffe9b8; --thumb: #fff; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --back: #121518; --card: #1b1f24; --text: #e7eaed; --soft: #a8b1ba; --line: #363d45;
    --accent: #84bcff; --share-back: #1f3c5c; --warn: #ffd98a; --warn-back: #4a3500; --thumb: #fff; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 84rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .25rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: 0 0 .5rem; max-width: 44rem; }
a { color: var(--accent); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.soft, footer, caption { color: var(--soft); }
.unheard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
footer { margin-top: 3rem; font-size: .875rem; }

.tiles { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0 0; }
.tiles div { display: flex; flex-direction: column-reverse; }
.tiles dt { color: var(--soft); font-size: .875rem; }
.tiles dd { margin: 0; font-size: 1.5rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }

nav { margin: 1.5rem 0 0; font-size: .9375rem; }
nav h2 { font-size: 1rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav li a { display: flex; justify-content: space-between; gap: 1rem; padding: .25rem 0; text-decoration: none;
  border-bottom: 1px solid var(--line); }
nav li a:hover { text-decoration: underline; }
nav li span { color: var(--text); font-variant-numeric: tabular-nums; }

section { margin: 2.5rem 0 0; }
.about { color: var(--soft); }
.count { color: var(--soft); font-weight: 400; font-variant-numeric: tabular-nums; }
.tag { font-size: .75rem; font-weight: 400; color: var(--soft); border: 1px solid var(--line); border-radius: 1rem;
  padding: .1rem .5rem; white-space: nowrap; vertical-align: .1em; }
.back { font-size: .875rem; margin: .75rem 0 0; }
.none { padding: 1rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }

table { border-collapse: collapse; width: 100%; max-width: 52rem; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; font-size: .875rem; padding: .25rem 0; }
th, td { text-align: right; padding: .3rem .5rem; border-bottom: 1px solid var(--line); font-weight: 400;
  vertical-align: top; }
thead th { vertical-align: bottom; color: var(--soft); font-size: .8125rem; line-height: 1.3; overflow-wrap: break-word; }
th:first-child { text-align: left; padding-left: 0; min-width: 4.5rem; }
td { overflow-wrap: normal; white-space: nowrap; }
.lines { display: inline-block; white-space: normal; }
td.bar { background: linear-gradient(var(--share-back), var(--share-back)) left / var(--share) 100% no-repeat; }
td.thin { background: var(--warn-back); color: var(--warn); font-weight: 700; }
/* relative: what is only heard would else stick out of the box */
.scroll { overflow-x: auto; max-width: 100%; position: relative; }
.wide table { width: auto; min-width: min(100%, 30rem); }
.wide th[scope="row"] { min-width: 7rem; max-width: 14rem; }
.wide thead th { max-width: 9rem; }

svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.chart { max-width: 32rem; }
.grid { stroke: var(--line); fill: none; }
.line { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
.band { fill: var(--accent); opacity: .16; }
.whisker { stroke: var(--accent); opacity: .5; }
.dot { fill: var(--accent); }
.multiples { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; list-style: none;
  margin: 0; padding: 0; font-size: .875rem; line-height: 1.35; }
.multiples b { display: block; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); width: fit-content; padding: .25rem 0; }

.cards { display: grid; gap: .75rem; list-style: none; margin: .75rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 7.5rem), 1fr)); gap: .75rem; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .8125rem; line-height: 1.35; margin-top: .35rem; }
figcaption b { display: block; font-size: .875rem; }
.path { color: var(--soft); font-size: .75rem; }
.thumb { display: flex; align-items: center; justify-content: center; width: 100%; aspect-ratio: 1; max-height: 8.25rem;
  overflow: hidden;
  background: var(--thumb); border: 1px solid var(--line); border-radius: .25rem; }
.thumb img { display: block; max-width: 100%; height: auto; max-height: 100%; object-fit: contain; }
.broken { flex-direction: column; padding: .5rem; text-align: center; font-size: .8125rem; line-height: 1.3;
  background: repeating-linear-gradient(135deg, var(--card) 0 8px, var(--back) 8px 16px); border-style: dashed; }
.about-this .thumb { outline: 2px solid var(--accent); outline-offset: -1px; }
.say { margin: .6rem 0 0; font-size: .875rem; line-height: 1.4; }
.note { color: var(--soft); white-space: nowrap; }
.to { color: var(--accent); }
.one .card { display: block; }
.one figure { display: grid; grid-template-columns: 8.25rem minmax(0, 1fr); gap: .75rem; }
.one figcaption { margin: 0; }
.plain { padding-left: 1.25rem; max-width: 52rem; }
.plain li { margin: .25rem 0; }

@media (max-width: 30rem) {
  th, td { padding: .3rem .25rem; }
  table { font-size: .875rem; }
  thead th { font-size: .75rem; }
}
@media (min-width: 32rem) and (max-width: 65.99rem) {
  nav ul { columns: 2; column-gap: 2rem; }
  nav li { break-inside: avoid; }
}
@media (min-width: 48rem) {
  .four { grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); }
  .four .pictures { grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .six { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
  .six .pictures { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
@media screen and (min-width: 66rem) {
  .columns { display: grid; grid-template-columns: 16rem minmax(0, 1fr); gap: 2.5rem; align-items: start; }
  nav { position: sticky; top: 1rem; max-height: calc(100vh - 2rem); overflow-y: auto; }
  section:first-child { margin-top: 1.5rem; }
}
@media print {
  :root { --back: #fff; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .card, .multiples li, tr, .chart { break-inside: avoid; }
  h2, h3, .about { break-after: avoid; }
  .back { display: none; }
  .scroll { overflow: visible; }
  .thumb, td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
""".strip()

# What pages of figures need beside it: tables that sort, a matrix, plots.
FIGURES = """
:root { --second: #9a4a00; --hit: #9cc6f2; --miss: #ff9d47; }
@media screen and (prefers-color-scheme: dark) { :root { --second: #ffb37a; --hit: #1d5796; --miss: #8a4400; } }
th button { all: unset; box-sizing: border-box; cursor: pointer; width: 100%; padding: .3rem 0; text-align: inherit;
  overflow-wrap: break-word; }
th button:hover { color: var(--accent); }
th button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
th button::after { content: "\\2195"; padding-left: .25em; opacity: .6; }
[aria-sort] button { color: var(--text); font-weight: 600; }
[aria-sort] button::after { opacity: 1; }
[aria-sort="ascending"] button::after { content: "\\2191"; }
[aria-sort="descending"] button::after { content: "\\2193"; }
.narrow { max-width: 30rem; }
.flag { margin: 1rem 0; padding: .5rem .75rem; border-radius: .25rem; background: var(--warn-back); color: var(--warn); }
.flag a { color: inherit; }
.of { font-weight: 400; }
figcaption b + .note { white-space: normal; }
.pairs th:nth-child(2), .pairs td:nth-child(2) { text-align: left; white-space: normal; min-width: 7rem; max-width: 14rem;
  overflow-wrap: anywhere; }
.tiles dt b { display: block; color: var(--text); font-weight: 400; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .25rem 1rem; margin: .5rem 0 1rem; }
.facts dt { color: var(--soft); }
.facts dd { margin: 0; }

.matrix { font-size: .8125rem; }
.wide .matrix { min-width: 0; }
.matrix th, .matrix td { padding: .2rem; }
.matrix td { min-width: 1.9rem; text-align: center; border: 1px solid var(--line); }
.matrix th[scope="row"] { position: sticky; left: 0; z-index: 1; background: var(--back); text-align: right;
  padding-right: .5rem; min-width: 0; max-width: none; }
.matrix th[scope="row"] span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden;
  width: max-content; max-width: min(14rem, 30vw); margin-left: auto; }
.matrix .up { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9rem; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.matrix thead th:not(:first-child) { text-align: center; }
.matrix td a { color: inherit; }
.right { background: color-mix(in srgb, var(--hit) var(--heat), transparent); }
.wrong { background: color-mix(in srgb, var(--miss) var(--heat), transparent); }
tr:target th { outline: 2px solid var(--accent); outline-offset: -2px; }

.plots { display: grid; gap: 1rem; max-width: 66rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
.plots h3 { margin-top: .5rem; }
.path + .note { display: block; }
.square { max-width: 28rem; }
.second { stroke: var(--second); stroke-dasharray: 7 4; }
.diagonal { stroke: var(--soft); stroke-dasharray: 2 4; fill: none; }
.column { fill: var(--accent); opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; list-style: none; padding: 0; margin: .5rem 0;
  font-size: .875rem; }
.legend li { display: flex; align-items: center; gap: .5rem; }
.legend svg { width: 36px; flex: none; }
@media print {
  th button::after { content: ""; }
  .matrix, .matrix thead th { font-size: 6.5pt; }
  .matrix th, .matrix td { padding: 1px; min-width: 0; }
  .matrix th[scope="row"] { position: static; }
}
"""
