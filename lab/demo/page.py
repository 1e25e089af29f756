"""The report's page, with its style in it; `$name` marks what report.py puts in."""

from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>graft demo</title>
<style>
  :root { --ink: #22272e; --faint: #6b7280; --line: #e4e7ec; --good: #1a7f4b; --bad: #b42318; }
  body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink);
         max-width: 62rem; margin: 3rem auto; padding: 0 1.25rem; background: #fff; }
  h1 { font-size: 1.9rem; letter-spacing: -.015em; margin: 0 0 .4rem; }
  h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
  p { max-width: 44rem; }
  .lead { font-size: 1.08rem; }
  .note { color: var(--faint); font-size: .92rem; }
  .good, .bad { font-weight: 600; padding-left: .7rem; border-left: 4px solid; }
  .good { color: var(--good); } .bad { color: var(--bad); }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
  th, td { text-align: left; padding: .4rem 1.1rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
  th { font-weight: 600; white-space: nowrap; }
  figure { margin: 1rem 0; } img { width: 100%; height: auto; display: block; }
  code { font: .88rem/1.4 ui-monospace, Menlo, Consolas, monospace; }
</style>
</head>
<body>
<h1>graft demo</h1>
<p class="lead">$lead</p>
$verdict
<h2>How good the student became</h2>
<p class="note">Progressive validation: every example was predicted before it was learnt, so all is out-of-sample.
The control is the same student, with the same seed and examples, without the teacher. The teacher is used as it is;
it never saw the target. Item mean predicts each item's mean label so far.</p>
<div class="wide">$quality</div>
$auc_pictures
<h2>How it served meanwhile</h2>
<figure><img src="latency.png" alt="Latency of score requests over time, swaps marked"></figure>
<figure><img src="cache_hits.png" alt="Share of examples whose teacher logit lay in the cache"></figure>
<div class="wide">$path</div>
<h2>What it ran on</h2>
<div class="wide">$about</div>
<p class="note">The same numbers for programs: <a href="summary.json">summary.json</a>.</p>
</body>
</html>
""")
