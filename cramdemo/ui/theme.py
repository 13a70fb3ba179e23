"""How the page looks: theme, style sheet, and the fixed words around the tabs. System fonts only."""

from __future__ import annotations

import gradio as gr

PAPER = "https://arxiv.org/abs/2502.13063"
SANS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")

HEADER = f"""
<nav class="cd-skip" aria-label="Skip">
  <a href="#tabs" data-to="tab">Skip to the tabs</a>
  <a href="#tabs" data-to="tabpanel">Skip to what the open tab shows</a>
</nav>
<header class="cd-top">
  <svg viewBox="0 0 56 40" width="56" height="40" aria-hidden="true">
    <g class="cd-lines"><path d="M2 6h22M2 15h18M2 24h22M2 33h12"/></g>
    <path class="cd-arrow" d="M29 20h10m-4-4 4 4-4 4"/>
    <g class="cd-cells"><rect x="45" y="3" width="8" height="7"/><rect x="45" y="12" width="8" height="7"/>
    <rect x="45" y="21" width="8" height="7"/><rect x="45" y="30" width="8" height="7"/></g>
  </svg>
  <div>
    <h1>cramdemo</h1>
    <p>Cram a text into a few input vectors of a frozen language model, watch it happen, and have it proven by decoding
    it back, token by token.
    <a href="{PAPER}" target="_blank" rel="noopener noreferrer">The paper: arXiv 2502.13063</a></p>
  </div>
</header>
<h2 class="cd-unseen">What to do here</h2>
"""
HEADER_SCRIPT = """
element.addEventListener('click', event => {  // the address keeps its fragment, which may hold a text
  const to = event.target.closest('.cd-skip a')?.dataset.to;
  if (!to) { return; }
  event.preventDefault();
  const all = [...document.querySelectorAll(`#tabs [role=${to}]`)];
  const at = all.find(node => to === 'tab' ? node.ariaSelected === 'true' : node.offsetParent);
  if (to === 'tabpanel') { at.tabIndex = -1; }
  at.focus();
});
"""

FOOT = """
<section class="cd-foot" aria-label="Good to know">
  <p>This is not a way to save bytes, and not understanding: the vectors give the text back, they do not carry its
  meaning for other tasks. Whoever has the model can decode them: share them as you would share the text.</p>
</section>
"""

# In the head, since gradio scopes what stands in a style sheet's @media to the inside of the page. Not "none": what
# waits for the end of an animation must see one.
CALM = """<style>@media (prefers-reduced-motion: reduce) {
  *, *::before, *::after { transition-duration: .01ms !important; animation-duration: .01ms !important;
    animation-iteration-count: 1 !important; scroll-behavior: auto !important; }
}</style>"""


def theme() -> gr.themes.Base:
    """A calm paper-and-ink theme; the accents are those of the style sheet."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        font=SANS,
        font_mono=MONO,
        radius_size=gr.themes.sizes.radius_lg,
    ).set(
        block_radius="10px",
        color_accent="#0b6b5c",
        color_accent_soft="#e4f1ed",
        color_accent_soft_dark="#17392f",
        table_odd_background_fill="#fdfcf9",
        table_odd_background_fill_dark="#151817",
        body_background_fill="#f6f4ee",
        body_background_fill_dark="#121413",
        body_text_color="#1d1c19",
        body_text_color_dark="#ece9e1",
        body_text_color_subdued="#5d594f",
        body_text_color_subdued_dark="#aaa69b",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1b1e1d",
        background_fill_secondary="#f6f4ee",
        background_fill_secondary_dark="#121413",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1b1e1d",
        block_border_color="#e2ddd0",
        block_border_color_dark="#313633",
        border_color_primary="#e2ddd0",
        border_color_primary_dark="#313633",
        block_label_text_color="#5d594f",
        block_label_text_color_dark="#aaa69b",
        block_title_text_color="#1d1c19",
        block_title_text_color_dark="#ece9e1",
        block_title_text_weight="600",
        block_info_text_color="#5d594f",
        block_info_text_color_dark="#aaa69b",
        input_background_fill="#fdfcf9",
        input_background_fill_dark="#151817",
        input_border_color="#cfc8b8",
        input_border_color_dark="#3d433f",
        input_placeholder_color="#706b60",
        input_placeholder_color_dark="#8f8b81",
        slider_color="#0b6b5c",
        slider_color_dark="#4fcfb4",
        button_primary_background_fill="#0b6b5c",
        button_primary_background_fill_hover="#09594c",
        button_primary_background_fill_dark="#4fcfb4",
        button_primary_background_fill_hover_dark="#74dcc7",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#06231d",
        button_secondary_background_fill="#ebe7db",
        button_secondary_background_fill_hover="#e0dac9",
        button_secondary_background_fill_dark="#2a2f2c",
        button_secondary_background_fill_hover_dark="#363c38",
        button_secondary_text_color="#1d1c19",
        button_secondary_text_color_dark="#ece9e1",
        button_cancel_background_fill="#ffffff",
        button_cancel_background_fill_dark="#1b1e1d",
        button_cancel_border_color="#a8410f",
        button_cancel_border_color_dark="#ff9d66",
        button_cancel_text_color="#a8410f",
        button_cancel_text_color_dark="#ff9d66",
        link_text_color="#0b6b5c",
        link_text_color_dark="#4fcfb4",
    )


CSS = """
:root, .gradio-container {
  --cd-ink: #1d1c19; --cd-muted: #5d594f; --cd-line: #e2ddd0; --cd-surface: #ffffff; --cd-sunk: #f6f4ee;
  --cd-accent: #0b6b5c; --cd-accent-soft: #d9ece6; --cd-warm: #a8410f; --cd-warm-soft: #f8e6da;
  --cd-blue: #2a5db0; --cd-violet: #7a3e9d;
  --cd-sans: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  --cd-serif: "Iowan Old Style", "Palatino Linotype", Palatino, Charter, Georgia, serif;
}
.dark, .dark .gradio-container {
  --cd-ink: #ece9e1; --cd-muted: #aaa69b; --cd-line: #313633; --cd-surface: #1b1e1d; --cd-sunk: #121413;
  --cd-accent: #4fcfb4; --cd-accent-soft: #17392f; --cd-warm: #ff9d66; --cd-warm-soft: #44281a;
  --cd-blue: #8ab4f8; --cd-violet: #d0a5ee;
}
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; color: var(--cd-ink); }
.gradio-container.gradio-container :focus-visible { outline: 2px solid var(--cd-accent) !important;
  outline-offset: 2px; }
.gradio-container button[role="tab"][aria-selected="true"] { color: var(--cd-accent); font-weight: 600; }
.gradio-container button[role="tab"][aria-selected="true"]::after { background: var(--cd-accent); }
.cd-flat, .cd-flat .html-container { padding: 0 !important; border: 0 !important; background: none !important;
  overflow: visible !important; }
.cd-flat p, .cd-flat h1, .cd-flat h2, .cd-flat h3, .cd-flat dl, .cd-flat dd, .cd-flat pre { margin: 0; }
.cd-columns { gap: 24px !important; align-items: flex-start; }
.cd-left, .cd-right { gap: 14px !important; }

.cd-skip { position: relative; z-index: 20; }
.cd-skip a { position: absolute; top: 4px; left: 0; padding: 8px 14px; border-radius: 8px; font-size: 14.5px;
  background: var(--cd-ink); color: var(--cd-surface); text-decoration: none; }
.cd-skip a:not(:focus) { width: 1px; height: 1px; padding: 0; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.cd-top { display: flex; gap: 18px; align-items: center; padding: 14px 0 6px; }
.cd-top svg { flex: none; }
.cd-top h1 { font: 600 30px/1.1 var(--cd-serif); letter-spacing: -0.01em; color: var(--cd-ink); }
.cd-top p { margin-top: 4px; max-width: 74ch; font-size: 15.5px; line-height: 1.45; color: var(--cd-muted); }
.cd-top a { color: var(--cd-accent); text-decoration: underline; text-underline-offset: 2px; }
.cd-lines path { stroke: var(--cd-muted); stroke-width: 3; stroke-linecap: round; fill: none; }
.cd-arrow { stroke: var(--cd-warm); stroke-width: 2.4; stroke-linecap: round; stroke-linejoin: round; fill: none; }
.cd-cells rect { fill: var(--cd-accent); rx: 1.5px; }

.cd-count { font-size: 13.5px; line-height: 1.5; color: var(--cd-muted); font-variant-numeric: tabular-nums; }
.cd-count span:first-child { color: var(--cd-ink); }
.cd-count abbr { text-decoration: underline dotted; text-underline-offset: 3px; }
.cd-count[data-over="1"], .cd-count[data-over="1"] span { color: var(--cd-warm); font-weight: 600; }
input[type="range"]::-webkit-slider-thumb { border: 2px solid var(--cd-accent); }
input[type="range"]::-moz-range-thumb { border: 2px solid var(--cd-accent); }
.dark input[type="range"] { --neutral-200: #3d433f; }
.cd-chips { gap: 6px !important; align-items: center; flex-wrap: wrap !important; }
.cd-chips > * { flex: 0 0 auto !important; min-width: 0 !important; width: auto !important; }
.cd-chips-label { font-size: 13px; color: var(--cd-muted); }
button.cd-chip { border-radius: 999px; padding: 5px 12px; font-size: 13px; font-weight: 500; width: auto; }
.cd-run button { font-size: 17px; padding-block: 12px; }
.cd-note { font-size: 13px; line-height: 1.5; color: var(--cd-muted); }
.cd-note span { white-space: normal; font-variant-numeric: tabular-nums; }

.cd-picker .cd-label { display: block; font-size: 14px; font-weight: 600; color: var(--cd-ink); margin-bottom: 6px; }
.cd-picker details { background: var(--cd-surface); border: 1px solid var(--cd-line); border-radius: 10px; }
.cd-picker summary { cursor: pointer; padding: 9px 14px; font-size: 15px; color: var(--cd-ink); border-radius: 10px; }
.cd-picked-facts { color: var(--cd-muted); font-size: 13.5px; margin-left: 6px; }
.cd-models { max-height: 340px; overflow-y: auto; border-top: 1px solid var(--cd-line); padding: 4px; }
.cd-model { display: grid; grid-template-columns: auto 1fr; gap: 1px 10px; padding: 7px 9px; border-radius: 7px;
  cursor: pointer; align-items: baseline; }
.cd-model:hover { background: var(--cd-sunk); }
.cd-model:has(input:checked) { background: var(--cd-accent-soft); }
.cd-model:has(input:disabled) { cursor: not-allowed; }
.cd-model:has(input:disabled) .cd-model-name { color: var(--cd-muted); font-weight: 400; }
.cd-model input { appearance: none; width: 15px; height: 15px; margin: 0; border: 1.5px solid var(--cd-muted);
  border-radius: 50% !important; background: none !important; align-self: start; margin-top: 3px; }
.cd-model input:checked { border: 5px solid var(--cd-accent); }
.cd-model input:disabled { opacity: .4; }
.cd-model-head { display: flex; flex-wrap: wrap; gap: 0 10px; justify-content: space-between; }
.cd-model-name { font-weight: 600; color: var(--cd-ink); font-size: 14.5px; }
.cd-model-size, .cd-model-facts, .cd-models-note { font-size: 12.5px; line-height: 1.45; color: var(--cd-muted);
  font-variant-numeric: tabular-nums; }
.cd-model-facts, .cd-model-reason { grid-column: 2; }
.cd-model-reason { font-size: 12.5px; line-height: 1.45; color: var(--cd-warm); overflow-wrap: anywhere; }
.cd-models-note { padding: 8px 14px; border-top: 1px solid var(--cd-line); }
.cd-models-note:empty { display: none; }
.cd-other { display: flex; flex-wrap: wrap; gap: 8px; align-items: end; padding: 10px 14px;
  border-top: 1px solid var(--cd-line); font-size: 13px; }
.cd-other[hidden] { display: none; }
.cd-other label { flex: 1 1 180px; color: var(--cd-muted); }
.cd-other input { width: 100%; margin-top: 3px; padding: 5px 9px; border: 1px solid var(--cd-line);
  border-radius: 6px; background: var(--cd-sunk); color: var(--cd-ink); font-size: 14px; }
.cd-other button { padding: 6px 12px; border: 1px solid var(--cd-line); border-radius: 6px; color: var(--cd-ink);
  background: var(--cd-sunk); cursor: pointer; }
.cd-space { gap: 8px !important; justify-content: flex-end; }
.cd-space > * { flex: 0 0 auto !important; width: auto !important; }
.cd-link { gap: 10px !important; align-items: center; }
.cd-link button { padding: 6px 12px; }
.cd-link > * { flex: 0 0 auto !important; width: auto !important; }

.cd-panel, .cd-status, .cd-card {
  background: var(--cd-surface); border: 1px solid var(--cd-line); border-radius: 10px; padding: 14px 16px;
}
.cd-panel h3 { font-size: 13px; font-weight: 600; color: var(--cd-muted); display: flex; gap: 10px; flex-wrap: wrap;
  align-items: baseline; justify-content: space-between; }
.cd-empty { color: var(--cd-muted); font-size: 14px; line-height: 1.5; padding-top: 6px; }
.cd-empty[hidden] { display: none; }

.cd-flat [data-testid="status-tracker"]:not(.minimal) { display: none; }
.cd-flat > [data-testid="status-tracker"].minimal { inset: 14px 16px auto auto; width: auto; height: auto;
  padding: 0 !important; background: none; opacity: 1; }
.cd-flat > [data-testid="status-tracker"].minimal .progress-text { position: static; transform: none;
  margin: 0; padding: 0; background: none; font: 14px/1.4 var(--cd-sans); color: var(--cd-ink);
  font-variant-numeric: tabular-nums; }
.cd-flat > .html-container.pending { opacity: 1; }
.cd-status { border-left: 4px solid var(--cd-line); min-height: 117px; display: flex; flex-direction: column;
  justify-content: center; box-sizing: border-box; } /* room for figures before there are any: nothing shifts */
.cd-status[data-state="running"], .cd-status[data-state="waiting"] { border-left-color: var(--cd-warm); }
.cd-status[data-state="done"] { border-left-color: var(--cd-accent); }
.cd-status[data-state="error"] { border-left-color: var(--cd-warm); background: var(--cd-warm-soft); }
#status .cd-status { min-height: 117px; }
.cd-head { font-size: 15px; font-weight: 600; color: var(--cd-ink); overflow-wrap: anywhere; }
.cd-status[data-state="idle"] .cd-head { font-weight: 400; color: var(--cd-muted); }
.cd-status dl { display: flex; flex-wrap: wrap; gap: 6px 24px; margin-top: 8px; }
.cd-status dl div { display: flex; flex-direction: column-reverse; min-width: 74px; }
.cd-status dt, .cd-figures dt { font-size: 12.5px; color: var(--cd-muted); }
.cd-status dd { font-size: 17px; font-weight: 600; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-bar { height: 5px; border-radius: 3px; background: var(--cd-line); margin-top: 12px; overflow: hidden; }
.cd-bar i { display: block; height: 100%; background: var(--cd-accent); transition: width .15s linear; }
.cd-search { display: flex; flex-wrap: wrap; gap: 6px; margin: 12px 0 0 !important; padding: 0 !important;
  list-style: none; min-height: 62px; align-content: flex-start; font-size: 13px; color: var(--cd-muted);
  font-variant-numeric: tabular-nums; }
.cd-search li { padding: 2px 9px; border: 1px solid var(--cd-line); border-radius: 999px; margin: 0; height: 26px; }
.cd-search b { color: var(--cd-ink); font-weight: 600; }
.cd-search [data-kind="lossless"] { background: var(--cd-accent-soft); border-color: var(--cd-accent);
  color: var(--cd-ink); }
.cd-search [data-kind="trying"] { border-style: dashed; border-color: var(--cd-warm); }

.cd-tokenview { position: relative; min-height: 150px; }
.cd-tokens, .cd-text {
  font: 16px/1.9 var(--cd-serif); color: var(--cd-ink); white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 300px; overflow-y: auto; margin-top: 6px !important; padding: 2px; border-radius: 4px; background: none;
}
.cd-textstage { min-height: 150px; }
.cd-tokens { position: relative; line-height: 2.05; padding-top: 8px; margin-top: 0 !important; }
.cd-tokens[hidden], .cd-text[hidden], .cd-copy[hidden], .cd-tip[hidden] { display: none; }
.cd-token { unicode-bidi: isolate; border-radius: 3px; padding: 2px 0; transition: background .2s;
  box-shadow: inset 1px 0 0 var(--cd-line); }
.cd-token.cd-right { background: var(--cd-accent-soft); box-shadow: inset 1px 0 0 var(--cd-surface); }
.cd-token.cd-prefix, .cd-key-prefix { background: var(--cd-accent-soft);
  box-shadow: inset 1px 0 0 var(--cd-surface), 0 2px 0 var(--cd-accent); }
.cd-token.cd-prefix { border-radius: 0; }
.cd-token.cd-wrong, .cd-key-wrong { text-decoration: underline wavy var(--cd-warm) 1.5px; text-underline-offset: 4px;
  color: var(--cd-muted); text-decoration-skip-ink: none; }
.cd-token[data-says] { position: relative; background: var(--cd-warm-soft); color: var(--cd-ink); }
.cd-token[data-says]::before { content: attr(data-says); position: absolute; left: 0; bottom: calc(100% - 5px);
  max-width: 16ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; padding: 0 5px; border-radius: 4px;
  font: 600 11px/15px var(--cd-sans); color: var(--cd-surface); background: var(--cd-warm); pointer-events: none; }
.cd-token.cd-late::before { left: auto; right: 0; }
.cd-token.cd-active, .cd-token:hover { outline: 1.5px solid var(--cd-ink); outline-offset: 0; }
.cd-key { font-size: 12.5px; line-height: 1.7; color: var(--cd-muted); padding-top: 4px; }
.cd-key span { padding: 1px 4px; border-radius: 3px; color: var(--cd-ink); margin-right: 5px; }
.cd-key-right { background: var(--cd-accent-soft); }
.cd-key .cd-key-wrong { padding: 0; margin: 0; }
.cd-strip { contain: inline-size; display: flex; gap: 6px; height: 76px; margin-top: 8px; }
.cd-scale { display: flex; flex-direction: column; justify-content: space-between; width: 26px; flex: none;
  text-align: right; font-size: 11px; line-height: 1; color: var(--cd-muted); font-variant-numeric: tabular-nums;
  padding-bottom: 6px; }
.cd-bars { flex: 1 1 0; min-width: 0; display: flex; gap: 1px; overflow: auto hidden; padding: 0 2px 6px;
  position: relative; scrollbar-width: thin; border-radius: 4px;
  background: linear-gradient(var(--cd-line), var(--cd-line)) 0 calc(100% - 5px) / 100% 1px no-repeat local; }
.cd-bit { flex: 1 0 4px; max-width: 14px; display: flex; flex-direction: column; justify-content: flex-end; }
.cd-bit::after { content: ""; height: calc(var(--cd-share, 0) * 100%); border-radius: 2px 2px 0 0;
  box-shadow: inset 0 0 0 1.2px var(--cd-muted); }
.cd-bit.cd-right::after { background: var(--cd-accent); box-shadow: none; }
.cd-bit.cd-wrong::after { box-shadow: inset 0 0 0 1.2px var(--cd-warm); }
.cd-bit:first-child::after { display: none; }
.cd-bit.cd-active { outline: 1.5px solid var(--cd-ink); }
.cd-solved { font-weight: 600; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-said, .cd-unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
.cd-tip { position: absolute; z-index: 5; pointer-events: none; padding: 4px 9px; border-radius: 6px;
  max-width: calc(100% - 8px); background: var(--cd-ink); color: var(--cd-surface); font-size: 13px; line-height: 1.45;
  font-variant-numeric: tabular-nums; }

.cd-chart .cd-title { font-size: 14px; color: var(--cd-ink); }
.cd-chart .cd-aside { min-height: 1.45em; }
.cd-aside { font-size: 12.5px; color: var(--cd-muted); line-height: 1.45; }
.cd-stage { position: relative; margin-top: 6px; }
.cd-stage .cd-empty { position: absolute; inset: 0; padding: 0; }
.cd-plot { visibility: hidden; width: 100%; }
.cd-plot.cd-filled { visibility: visible; }
.cd-tools { display: flex; gap: 6px; }
.cd-tools[hidden] { visibility: hidden; display: flex; }
.cd-tools button { font-size: 12px; font-weight: 500; padding: 2px 8px; border: 1px solid var(--cd-line);
  border-radius: 6px; color: var(--cd-ink); background: var(--cd-sunk); cursor: pointer; }
.cd-tools button:disabled { display: none; }
.cd-chart h3 { flex-wrap: nowrap; }

.cd-card { border-left: 4px solid var(--cd-warm); }
.cd-card[data-kind="lossless"] { border-left-color: var(--cd-accent); }
.cd-card header { display: flex; flex-wrap: wrap; gap: 6px 12px; align-items: center; }
.cd-badge { font-size: 14px; font-weight: 700; letter-spacing: .05em; padding: 4px 11px; border-radius: 6px;
  background: var(--cd-warm-soft); color: var(--cd-warm); border: 1.5px solid currentColor; }
[data-kind="lossless"] .cd-badge { background: var(--cd-accent); border-color: var(--cd-accent);
  color: var(--cd-surface); }
.cd-claim { font-size: 18px; font-weight: 600; color: var(--cd-ink); }
.cd-proof { margin-top: 8px !important; color: var(--cd-muted); line-height: 1.5; font-size: 14.5px; }
.cd-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px 20px;
  margin-top: 14px !important; padding-top: 14px; border-top: 1px solid var(--cd-line); }
.cd-figures dd { font-size: 18px; font-weight: 600; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-figures dd.cd-why { font-size: 12.5px; font-weight: 400; line-height: 1.4; color: var(--cd-muted); }
.cd-bytes { margin-top: 14px !important; padding-top: 14px; border-top: 1px solid var(--cd-line);
  display: grid; gap: 6px; }
.cd-row { display: grid; grid-template-columns: minmax(128px, 30%) 1fr; gap: 10px; align-items: center;
  font-size: 13.5px; }
.cd-row dt { color: var(--cd-muted); }
.cd-row dd { display: flex; align-items: center; gap: 8px; }
.cd-row i { height: 11px; min-width: 3px; border-radius: 2px; background: var(--cd-muted); opacity: .55; }
.cd-row:last-child i { background: var(--cd-accent); opacity: 1; }
.cd-row b { white-space: nowrap; color: var(--cd-ink); font-variant-numeric: tabular-nums; }
.cd-honest { margin-top: 10px !important; font-size: 13.5px; line-height: 1.5; color: var(--cd-muted); }
.cd-expected { margin-top: -4px !important; min-height: 3em; }
.cd-expected b { color: var(--cd-ink); font-weight: 600; }
#card section { min-height: 516px; }
.cd-after { gap: 10px !important; min-height: 88px; }
.cd-tries, .cd-actions { gap: 8px !important; flex-wrap: wrap !important; }

.cd-facts table { width: 100%; border-collapse: collapse; margin-top: 6px; font-size: 14px; }
.cd-facts th, .cd-facts td { text-align: left; vertical-align: top; padding: 6px 0;
  border-top: 1px solid var(--cd-line); overflow-wrap: anywhere; color: var(--cd-ink);
  font-variant-numeric: tabular-nums; }
.cd-facts th { font-weight: 400; color: var(--cd-muted); padding-right: 14px; white-space: nowrap; }
.cd-text { max-height: 460px; line-height: 1.6; }
.cd-copy { font-size: 13px; padding: 2px 10px; border: 1px solid var(--cd-line); border-radius: 6px;
  color: var(--cd-ink); background: var(--cd-sunk); cursor: pointer; }

.cd-foot { padding: 18px 0 4px; border-top: 1px solid var(--cd-line); margin-top: 6px; }
.cd-foot p { font-size: 13.5px; line-height: 1.55; color: var(--cd-muted); max-width: 100ch; }
@media (max-width: 640px) {
  .cd-top { align-items: flex-start; gap: 12px; }
  .cd-top svg { width: 40px; }
  .cd-top h1 { font-size: 25px; }
  .cd-figures { grid-template-columns: 1fr 1fr; }
  button[role="tab"] { padding-inline: 9px; }
  .cd-status { min-height: 165px; }
  .cd-tokenview { min-height: 238px; }
  .cd-solved { flex-basis: 100%; min-height: 1.4em; }
  #status .cd-status { min-height: 214px; }
  #card section { min-height: 780px; }
  .cd-chart .cd-aside { min-height: 2.9em; }
  .cd-after { min-height: 128px; }
}
"""
