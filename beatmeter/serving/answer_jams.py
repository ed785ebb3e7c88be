"""An answer as a JAMS file, which music information retrieval tools read."""

from __future__ import annotations

from beatmeter import __version__
from beatmeter.datasets.annotations.jams import jams_annotation, jams_file
from beatmeter.serving.answer import Answer


def answer_jams(title: str, answer: Answer, model: str) -> str:
    """The text of a JAMS file: the meters that are heard as tags over the whole audio, each with its
    probability.

    JAMS has no namespace for meter, so it is `tag_open` with the values "meter 7" and "no meter". Scores of
    all classes are in the sandbox. `model` is the name of what answered.
    """
    scores = dict(zip(answer.classes, answer.scores.tolist(), strict=True))
    heard = [name for name in (answer.meter, answer.second) if name is not None and answer.meter is not None]
    said = [(f"meter {name}", scores[name]) for name in heard]
    if not said:
        said = [("no meter", 1 - (answer.heard or 0.0))]
    tags = jams_annotation(
        "tag_open",
        answer.seconds,
        [(0.0, round(answer.seconds, 6), value, round(score, 6)) for value, score in said],
        {"answer": answer.to_json()},
        annotation_tools=f"beatmeter {__version__}",
        data_source=model,
    )
    return jams_file(title, answer.seconds, [tags])
