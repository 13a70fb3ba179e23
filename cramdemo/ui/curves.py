"""The curves of a run: loss and accuracy, step by step. Knows no widget but the chart."""

from __future__ import annotations

import gradio as gr

from cramdemo.ui.chart import BLANK, axis, chart, figure, line

TITLE = "Loss and accuracy"
EMPTY = (
    "The curves appear here as the vectors are trained: loss in bits a token, and the share of tokens that the model "
    "gets right. Drag to zoom, double-click to go back."
)
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]
_LOSS = {"color": "--cd-warm", "width": 2}
_ACCURACY = {"color": "--cd-accent", "width": 2, "dash": "dot"}
_FIGURE = figure(
    TITLE,
    [
        line("loss", hovertemplate="%{y:.3f} bits a token") | {"line": _LOSS},
        line("accuracy, teacher-forced", yaxis="y2", hovertemplate="%{y:.1%}") | {"line": _ACCURACY},
    ],
    {
        "hovermode": "x unified",
        "xaxis": axis("step", rangemode="tozero"),
        "yaxis": axis("bits a token", rangemode="tozero"),
        "yaxis2": {
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.03],
            "tickmode": "array",
            "tickvals": _QUARTERS,
            "tickformat": ".0%",
            "showgrid": False,
            "fixedrange": True,
        },
    },
    fed=(0, 1),
    aside="Loss of the leading tokens in training, accuracy of all.",
)


def curves() -> gr.HTML:
    """The component; its value is made by `curves_value`."""
    return chart("curves", TITLE, EMPTY)


def curves_value(points: str) -> dict[str, str]:
    """What the component shows.

    Args:
        points: "step,loss,accuracy;" for each point so far.
    """
    if not points:
        return dict(BLANK)
    step, loss, accuracy = points[:-1].rpartition(";")[2].split(",")
    said = f"step {step}: loss {float(loss):.2f} bits a token, teacher-forced accuracy {float(accuracy):.0%}"
    return {"f": _FIGURE, "d": points, "a": said}
