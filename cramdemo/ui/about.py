"""The About tab: how it works in one picture, sources, words, limits, and where a text goes. Words only, no run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import gradio as gr

from cramdemo.catalogue import BUILT_IN, MODELS
from cramdemo.config import MAX_CHARACTERS_PAGE, MAX_NUM_MEM
from cramdemo.errors import plural
from cramdemo.settings import Settings, server_settings
from cramdemo.ui.api import MAX_UPLOAD_BYTES
from cramdemo.ui.links import MOST_CHARACTERS
from cramdemo.ui.offer import offered
from cramdemo.ui.pace import MAX_SECONDS
from cramdemo.ui.theme import PAPER
from cramdemo.ui.zero import ON_ZERO

MEBIBYTE = 1024 * 1024
LOCAL_ADDRESS = "http://127.0.0.1:7860"  # until the browser says where the page is
BIBTEX = """\
@inproceedings{kuratov2025cramming,
  title     = {Cramming 1568 Tokens into a Single Vector and Back Again:
               Exploring the Limits of Embedding Space Capacity},
  author    = {Kuratov, Yuri and Arkhipov, Mikhail and
               Bulatov, Aydar and Burtsev, Mikhail},
  booktitle = {Proceedings of the 63rd Annual Meeting of the
               Association for Computational Linguistics},
  year      = {2025},
  note      = {arXiv:2502.13063}
}

@inproceedings{tarasov2026progressive,
  title     = {Progressive Cramming:
               Reliable Token Compression and What It Reveals},
  author    = {Tarasov, Dmitrii and Lashukov, Timofei and
               Goncharova, Elizaveta and Kuznetsov, Andrey},
  booktitle = {International Conference on Machine Learning},
  year      = {2026}
}
"""
PYTHON = """\
from cramdemo import CramConfig, decode, load, load_model, run_cram, save

lm = load_model("cram-mini")
result = run_cram(lm, "We were tired of the sea.", CramConfig(num_mem=2))
save(result.vectors, "sea.safetensors")
print(result.lossless, decode(lm, load("sea.safetensors")).text)
"""
PAPERS = (  # title, who and what, and where: address and label
    (
        "Cramming 1568 Tokens into a Single Vector and Back Again",
        "Kuratov, Arkhipov, Bulatov, Burtsev, ACL 2025. One vector of a frozen Llama-3.1-8B can hold 1,568 tokens, and "
        "what limits a vector is the information in the text, not its length.",
        (
            (PAPER, "arXiv 2502.13063"),
            ("https://github.com/yurakuratov/hidden_capacity", "code of the cramming paper"),
        ),
    ),
    (
        "Progressive Cramming: Reliable Token Compression and What It Reveals",
        "Tarasov, Lashukov, Goncharova, Kuznetsov, ICML 2026. Exact prefixes that grow token by token; 99 % right is "
        "not lossless; crammed vectors give a text back but do not carry its meaning for other tasks.",
        (("https://github.com/FusionBrainLab/progressive_cramming", "code of progressive cramming"),),
    ),
    (
        "Memory tokens",
        "Sastre, Rosá, L2M2 2025. Texts of up to 240 tokens in English and Spanish, models of 100M to 8B parameters.",
        (("https://arxiv.org/abs/2506.15001", "arXiv 2506.15001"),),
    ),
    (
        "One-step generation",
        "Mezentsev, Oseledets, 2025. Two vectors make a frozen model give hundreds of tokens in a single forward pass.",
        (("https://arxiv.org/abs/2505.21189", "arXiv 2505.21189"),),
    ),
)
GLOSSARY = (
    (
        "memory tokens, [mem], K",
        "The trained input vectors in front of the text: K of them, each of the model’s width.",
    ),
    ("bits", "Every cost here is in bits. The cramming paper’s nats, divided by ln 2, are bits."),
    ("surprisal", "What a token costs the model: −log₂ of the probability that it gave it."),
    (
        "teacher-forced accuracy",
        "Share of the N tokens that are the model’s first choice while it is fed the true tokens before them.",
    ),
    (
        "greedy reconstruction",
        "What the model writes from [mem] alone, always taking its first choice and feeding that back. Only this "
        "counts as decoding.",
    ),
    ("lossless", "Greedy reconstruction gave all N token ids. It is said only after the decoding has been run."),
    (
        "margin",
        "Logit of the right token less the largest other one; a text’s margin is the smallest of its N tokens. A wide "
        "margin survives rounding.",
    ),
    ("H_LM", "Bits that the text costs the bare model. Tokens 2 to N: nothing stands before the first."),
    ("H_LM+mem", "The same tokens’ bits with [mem] in front."),
    ("information gain", "H_LM less H_LM+mem: the bits that [mem] saves the model."),
    ("C_H", "A model’s plateau of information gain: its mean over texts that are too long to be held."),
    ("token gain", "Right tokens with [mem] less right tokens of the bare model, both teacher-forced."),
    (
        "decoding capacity",
        "The cramming paper’s measure: the largest length at which mean teacher-forced accuracy is still 0.99.",
    ),
    ("compression horizon", "Progressive cramming’s measure: the longest prefix of a text that comes back exactly."),
    (
        "theoretical capacity",
        "K × width × 16 / log₂(vocabulary) tokens: what fits if every bit of 16-bit vectors held text.",
    ),
    ("capacity utilisation", "Token gain over theoretical capacity. In the paper 5 to 28 %."),
    ("BOS", "The mark for a text’s beginning, which many models know. Not used here unless a published recipe does."),
)
STEPS = (
    (
        "Put vectors in front",
        "K vectors, the memory tokens, take the place of a prompt. The model’s weights never change.",
    ),
    (
        "Train the vectors",
        "The model reads them and then your text. Where it would not have written the next token, the gradient changes "
        "the vectors, and nothing else.",
    ),
    (
        "Take the text away and decode",
        "The vectors are read back from the file’s bytes, and the model writes from them alone. If all N token ids "
        "are equal, the result is called lossless; otherwise it is called what it is.",
    ),
)
LIMIT = (
    "What limits it is surprise, not length. A vector can save a model only so many bits, whatever the text, so of "
    "prose that the model can half guess many tokens fit and of random words few. A larger model’s vector saves more, "
    "and K vectors save almost K times as much."
)

_TOKENS = ("The", "old", "sea")
_PICTURE_TITLE = "How a text is crammed and decoded"
_PICTURE_WORDS = (
    "Two rows. Above, training: two memory vectors and the tokens The, old, sea go into a frozen language model, which "
    "predicts The, old, sea; the error goes back to the memory vectors alone. Below, the check: the memory vectors "
    "alone go into the same model, each token that it writes is fed back, and what comes out is compared with the text."
)
_SCRIPT = """
const base = new URL('.', location.href).href.replace(/[/]$/, '');
for (const node of element.querySelectorAll('.cd-address')) { node.textContent = base; }
element.addEventListener('click', async event => {
  const button = event.target.closest('.cd-copy');
  if (!button) { return; }
  const code = document.getElementById(button.getAttribute('aria-controls'));
  try { await navigator.clipboard.writeText(code.textContent); button.textContent = 'Copied'; }
  catch (error) { getSelection().selectAllChildren(code); button.textContent = 'Selected: press Ctrl+C'; }
});
"""

CSS = """
.cd-about { display: grid; gap: 40px; padding: 8px 0 20px; }
.cd-about h2 { font: 600 22px/1.25 var(--cd-serif); color: var(--cd-ink); }
.cd-about h3 { font-size: 15.5px; font-weight: 600; line-height: 1.4; color: var(--cd-ink); }
.cd-about p, .cd-about li, .cd-about dd { font-size: 14.5px; line-height: 1.55; color: var(--cd-muted); }
.cd-about a { color: var(--cd-accent); text-decoration: underline; text-underline-offset: 2px; }
.cd-about code { font-family: var(--font-mono); font-size: 13px; color: var(--cd-ink); background: none; padding: 0; }
.cd-how { display: grid; grid-template-columns: minmax(0, 6fr) minmax(0, 5fr); gap: 20px 36px; align-items: center; }
.cd-how figure { margin: 0; padding: 18px; background: var(--cd-surface); border: 1px solid var(--cd-line);
  border-radius: 10px; }
.cd-how svg { display: block; width: 100%; height: auto; max-width: 560px; margin: 0 auto; }
.cd-how ol { list-style: none; margin: 16px 0 0; padding: 0; display: grid; gap: 14px; counter-reset: step; }
.cd-how li { counter-increment: step; padding-left: 38px; position: relative; }
.cd-how li::before { content: counter(step); position: absolute; left: 0; top: 1px; width: 25px; height: 25px;
  border-radius: 50%; font-size: 13.5px; line-height: 25px; text-align: center; font-weight: 600;
  background: var(--cd-accent-soft); color: var(--cd-ink); }
.cd-about .cd-limit { margin-top: 18px; padding-left: 14px; border-left: 3px solid var(--cd-accent);
  color: var(--cd-ink); }
.cd-how text { font-family: system-ui, sans-serif; font-size: 13px; fill: var(--cd-ink); }
.cd-how .cd-p-small { font-size: 12px; fill: var(--cd-muted); }
.cd-how .cd-p-head { font-weight: 600; }
.cd-how .cd-p-mem { fill: var(--cd-accent); }
.cd-how .cd-p-on { fill: var(--cd-surface); font-weight: 600; }
.cd-how .cd-p-good { fill: var(--cd-accent); }
.cd-how .cd-p-cell { fill: var(--cd-sunk); stroke: var(--cd-line); }
.cd-how .cd-p-fed { fill: none; stroke: var(--cd-muted); stroke-dasharray: 3 3; }
.cd-how .cd-p-model { fill: none; stroke: var(--cd-ink); stroke-width: 1.5; }
.cd-how .cd-p-line { fill: none; stroke: var(--cd-muted); stroke-width: 1.3; }
.cd-how .cd-p-back { fill: none; stroke: var(--cd-warm); stroke-width: 1.7; stroke-dasharray: 4 3; }
.cd-how .cd-p-warm { fill: var(--cd-warm); }
.cd-how .cd-p-tip { fill: var(--cd-muted); }
.cd-how .cd-p-tip-warm { fill: var(--cd-warm); }
.cd-pair { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 40px 36px; align-items: start; }
.cd-about ul { list-style: none; margin: 12px 0 0; padding: 0; display: grid; gap: 14px; }
.cd-code { margin-top: 12px !important; border: 1px solid var(--cd-line); border-radius: 10px;
  background: var(--cd-surface); }
.cd-code header { display: flex; justify-content: space-between; align-items: center; gap: 10px; padding: 8px 12px;
  border-bottom: 1px solid var(--cd-line); font-size: 13px; font-weight: 600; color: var(--cd-ink); }
.cd-code pre { font: 12.5px/1.55 var(--font-mono); color: var(--cd-ink); background: none; padding: 12px;
  overflow-x: auto; white-space: pre; border-radius: 0 0 10px 10px; }
.cd-words { margin-top: 12px !important; columns: 300px; column-gap: 36px; }
.cd-words div { break-inside: avoid; padding: 0 0 14px; }
.cd-words dt { font-size: 14.5px; font-weight: 600; line-height: 1.4; color: var(--cd-ink); }
.cd-limits { margin-top: 12px !important; }
.cd-limits div { display: grid; grid-template-columns: minmax(110px, 2fr) 3fr; gap: 14px; padding: 8px 0;
  border-top: 1px solid var(--cd-line); }
.cd-limits dt { font-size: 14.5px; line-height: 1.55; color: var(--cd-muted); }
.cd-limits dd { color: var(--cd-ink) !important; font-variant-numeric: tabular-nums; }
.cd-about section > p { margin-top: 10px; max-width: 74ch; }
@media (max-width: 760px) { .cd-how, .cd-pair { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 640px) {
  .cd-about { gap: 32px; }
  .cd-how figure { padding: 8px; }
  .cd-how text { font-size: 15px; }
  .cd-how .cd-p-small { font-size: 14px; }
}
"""


def picture() -> str:
    """The picture as an inline SVG, with a title and a description; its colours are those of the style sheet."""
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="{name}" d="M0 0 8 4 0 8z"/></marker>'
        for name in ("cd-p-tip", "cd-p-tip-warm")
    )
    return (
        '<svg viewBox="12 0 412 418" role="img" aria-labelledby="cd-picture-title cd-picture-words">'
        f'<title id="cd-picture-title">{_PICTURE_TITLE}</title><desc id="cd-picture-words">{_PICTURE_WORDS}</desc>'
        f"<defs>{tips}</defs>{_training()}{_checking()}</svg>"
    )


def _training() -> str:
    given = "".join(_cell(160 + 70 * i, 140, word) for i, word in enumerate(_TOKENS[:-1]))
    return (
        f"{_pass(0, 'Train')}{given}"
        '<path class="cd-p-line" d="M290 50H300"/><text class="cd-p-head" x="306" y="46">compared</text>'
        '<text class="cd-p-head" x="306" y="63">with the text</text>'
        '<path class="cd-p-back" d="M364 74V186H84V173" marker-end="url(#cd-p-tip-warm)"/>'
        '<text class="cd-p-warm" x="98" y="203">the error changes [mem] and nothing else</text>'
    )


def _checking() -> str:
    fed = "".join(_cell(160 + 70 * i, 364, word, "cd-p-fed") for i, word in enumerate(_TOKENS[:-1]))
    return (
        f"{_pass(224, 'Check')}{fed}"
        '<path class="cd-p-line" d="M290 274H300"/><text class="cd-p-head" x="306" y="270">all N equal:</text>'
        '<text class="cd-p-head cd-p-good" x="306" y="287">lossless</text>'
        '<text class="cd-p-small" x="84" y="408" text-anchor="middle">from the file</text>'
        '<text class="cd-p-small" x="224" y="408" text-anchor="middle">its own words, fed back</text>'
    )


def _pass(top: int, head: str) -> str:
    """One pass through the model: what both rows share. A position's output stands above it."""
    written = "".join(_cell(90 + 70 * i, top + 36, word) for i, word in enumerate(_TOKENS))
    rises = "".join(_arrow(49 + 70 * i, top + 138, top + 121) for i in range(4))
    rises += "".join(_arrow(119 + 70 * i, top + 86, top + 67) for i in range(3))
    memory = "".join(
        f'<rect class="cd-p-mem" x="{x}" y="{top + 140}" width="58" height="28" rx="6"/>'
        f'<text class="cd-p-on" x="{x + 29}" y="{top + 159}" text-anchor="middle">[mem]</text>'
        for x in (20, 90)
    )
    return f'<text class="cd-p-head" x="20" y="{top + 20}">{head}</text>{written}{_model(top + 87)}{memory}{rises}'


def _model(y: int) -> str:
    lock = (
        f'<g transform="translate(32 {y + 6})"><path class="cd-p-line" d="M4 8V5a4 4 0 0 1 8 0v3"/>'
        '<rect class="cd-p-tip" x="1" y="8" width="14" height="10" rx="2"/></g>'
    )
    return (
        f'<rect class="cd-p-model" x="20" y="{y}" width="268" height="32" rx="8"/>{lock}'
        f'<text x="154" y="{y + 21}" text-anchor="middle">language model, frozen</text>'
    )


def _cell(x: int, y: int, word: str, kind: str = "cd-p-cell") -> str:
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="58" height="28" rx="6"/>'
        f'<text x="{x + 29}" y="{y + 19}" text-anchor="middle">{word}</text>'
    )


def _arrow(x: int, start: int, end: int) -> str:
    return f'<path class="cd-p-line" d="M{x} {start}V{end}" marker-end="url(#cd-p-tip)"/>'


def limits(settings: Settings, queue_limit: int | None) -> list[tuple[str, str]]:
    """What this server allows, in words: name and limit.

    Args:
        settings: of the server.
        queue_limit: runs at a time; None where each has a GPU of its own.
    """
    seconds = settings.max_seconds or (MAX_SECONDS if ON_ZERO else 0)
    begun = "each run has a GPU of its own" if queue_limit is None else f"{plural(queue_limit, 'run')} at a time"
    return [
        ("memory tokens, K", f"1 to {settings.max_mem}; by command line to {MAX_NUM_MEM}"),
        (
            "length of a text",
            f"{MAX_CHARACTERS_PAGE:,} characters; and the model’s context, less K: for {BUILT_IN} "
            f"{MODELS[BUILT_IN].context:,} tokens",
        ),
        ("steps of a run", f"{settings.max_steps:,}"),
        ("time of a run", f"{seconds:,.0f} seconds; the best vectors so far are kept" if seconds else "no limit"),
        ("waiting", f"{begun}; {settings.queue:,} may wait"),
        ("a vector file given to the page", f"{MAX_UPLOAD_BYTES // MEBIBYTE} MiB"),
        ("a text in a link", f"{MOST_CHARACTERS:,} characters"),
        ("models", f"{len(offered())} on offer here; those that do not fit are refused before they are loaded"),
    ]


def about_html(settings: Settings, queue_limit: int | None, kept_hours: int) -> str:
    """The whole tab.

    Args:
        settings: of the server.
        queue_limit: runs at a time; None where each has a GPU of its own.
        kept_hours: how long a vector file is kept.
    """
    return (
        f'<div class="cd-about">{_how()}'
        f'<div class="cd-pair">{_papers()}{_cite()}</div>'
        f"{_glossary()}"
        f'<div class="cd-pair">{_limits(limits(settings, queue_limit))}{_privacy(kept_hours)}</div>'
        f'<div class="cd-pair">{_programs(settings)}{_built_in()}</div></div>'
    )


def _how() -> str:
    steps = "".join(f"<li><h3>{head}</h3><p>{words}</p></li>" for head, words in STEPS)
    return (
        f'<section><div class="cd-how"><figure>{picture()}</figure><div><h2>How it works</h2><ol>{steps}</ol>'
        f'<p class="cd-limit">{LIMIT}</p></div></div></section>'
    )


def _papers() -> str:
    items = "".join(
        f"<li><h3>{escape(title)}</h3><p>{escape(words)} {' · '.join(_link(*place) for place in places)}</p></li>"
        for title, words, places in PAPERS
    )
    return f"<section><h2>The papers</h2><ul>{items}</ul></section>"


def _link(address: str, words: str) -> str:
    return f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">{escape(words)}</a>'


def _cite() -> str:
    return (
        "<section><h2>To cite them</h2><p>The findings are theirs; this page only lets you see them.</p>"
        f"{_code('bibtex', 'BibTeX', escape(BIBTEX))}</section>"
    )


def _code(name: str, label: str, code: str) -> str:
    """A block of code with a button that copies it. `code` is HTML."""
    return (
        f'<div class="cd-code"><header><span>{label}</span><button type="button" class="cd-copy" '
        f'aria-controls="cd-code-{name}" aria-label="Copy the {label}">Copy</button></header>'
        f'<pre id="cd-code-{name}" tabindex="0" role="region" aria-label="{label}">{code}</pre></div>'
    )


def _glossary() -> str:
    return f'<section><h2>Words</h2><dl class="cd-words">{_terms(GLOSSARY)}</dl></section>'


def _limits(found: Sequence[tuple[str, str]]) -> str:
    return f'<section><h2>Limits of this page</h2><dl class="cd-limits">{_terms(found)}</dl></section>'


def _terms(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(words)}</dd></div>" for name, words in pairs)


def _privacy(kept_hours: int) -> str:
    return (
        "<section><h2>Where your text goes</h2><p>To the model on the machine that runs this page, and nowhere else: "
        "into no log, to no other visitor, to no third party. On a Space that machine is one of Hugging Face’s; on "
        "your own the page works without a network.</p><p>The vector file holds none of it in the clear, but whoever "
        "has the model can decode it: share vectors as you would share the text. The page keeps a finished or "
        "uploaded file for download, for "
        f"{kept_hours} hours at most, then deletes it.</p><p>A link holds the text only if you tick that, and then "
        "behind the #, which browsers do not send to a server.</p></section>"
    )


def _programs(settings: Settings) -> str:
    mcp = (
        'MCP clients find the same four as tools at <code><span class="cd-address">'
        f"{LOCAL_ADDRESS}</span>/gradio_api/mcp/</code>."
        if settings.mcp
        else "The same four are tools for MCP clients where the server is started with <code>CRAMDEMO_MCP=1</code>; "
        "here they are not."
    )
    return (
        "<section><h2>For programs</h2><p>By HTTP: <code>compress</code>, <code>decode</code>, <code>inspect</code> "
        f'and <code>models</code> at <code><span class="cd-address">{LOCAL_ADDRESS}</span>/gradio_api/</code>. “Use '
        "via API” at the foot of the page lists their parameters, the README has whole examples.</p>"
        f"<p>{mcp}</p><p>As a Python package:</p>{_code('python', 'Python', escape(PYTHON))}</section>"
    )


def _built_in() -> str:
    entry = MODELS[BUILT_IN]
    return (
        f"<section><h2>{BUILT_IN}</h2><p>The built-in model has {entry.parameters / 1e6:.1f} million parameters and is "
        "trained to read memory vectors, so that within seconds a CPU shows what large models do untrained. Its runs "
        "begin at the vectors of a trained encoder, unless the settings say otherwise; the optimiser does the rest. "
        "Its figures are its own, and those of the papers’ models are the papers’.</p></section>"
    )


def tab(queue_limit: int | None, kept_hours: int) -> None:
    """Lay out the tab.

    Args:
        queue_limit: runs at a time; None where each has a GPU of its own.
        kept_hours: how long gradio keeps a vector file.
    """
    gr.HTML(
        about_html(server_settings(), queue_limit, kept_hours),
        js_on_load=_SCRIPT,
        apply_default_css=False,
        elem_id="about",
        elem_classes="cd-flat",
    )
