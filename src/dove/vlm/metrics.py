"""Scores of answers, from 0 to 1, as the benchmarks of Table 9 define them."""

import re
from collections.abc import Callable, Sequence

from dove.errors import UserError

# VQA's official normalisation (https://visualqa.org/evaluation.html): punctuation, numbers, articles, contractions.
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = {
    word: str(value) for value, word in enumerate("zero one two three four five six seven eight nine ten".split())
}
NUMBERS["none"] = "0"
ARTICLES = frozenset(("a", "an", "the"))
CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've "
    "he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've "
    "o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's "
    "someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's "
    "what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've "
    "wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
).split()
ANLS_THRESHOLD = 0.5
RELAXED_TOLERANCE = 0.05


# The official table lists each contraction with any one of its apostrophes left out, and this one the wrong way round.
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word for word in CONTRACTED for place, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}


def normalize_vqa(answer: str) -> str:
    """An answer as the official VQA evaluation compares it.

    A punctuation mark is dropped where it, or a comma between digits, says that it separates nothing; else it becomes
    a space. Full stops go unless a digit follows.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    thousands = re.search(r"\d,\d", text) is not None
    cleaned = text
    for mark in PUNCTUATION:
        dropped = thousands or f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if dropped else " ")
    words = re.sub(r"\.(?!\d)", "", cleaned).lower().split()
    words = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the people asked of min(1, agreeing others / 3); with a single answer, whether it is the same."""
    given = normalize_vqa(prediction)
    agree = [normalize_vqa(answer) == given for answer in answers]
    if len(agree) == 1:
        return float(agree[0])
    return sum(min(1.0, (sum(agree) - own) / 3) for own in agree) / len(agree)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Score 1 for one of the answers, but for case, outer spaces and a full stop (GQA)."""

    def plain(text: str) -> str:
        return text.strip().removesuffix(".").lower()

    return float(plain(prediction) in map(plain, answers))


def levenshtein(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions of letters from one text to the other."""
    row = list(range(len(second) + 1))
    for number, letter in enumerate(first, 1):
        above, row = row, [number]
        for place, other in enumerate(second):
            row.append(min(above[place + 1] + 1, row[place] + 1, above[place] + (letter != other)))
    return row[-1]


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity of the nearest answer; 0 from a distance of half its length (DocVQA)."""

    def similarity(answer: str) -> float:
        first, second = (" ".join(text.lower().split()) for text in (prediction, answer))
        distance = levenshtein(first, second) / max(len(first), len(second), 1)
        return 1 - distance if distance < ANLS_THRESHOLD else 0.0

    return max(map(similarity, answers))


def relaxed_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score 1 for a number within 5% of the answer, or the same word but for case (ChartQA)."""

    def number(text: str) -> float | None:
        try:
            return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            return None

    def agrees(answer: str) -> bool:
        said, meant = number(prediction.strip()), number(answer.strip())
        if said is not None and meant:  # no share of an answer of 0
            return abs(said - meant) / abs(meant) <= RELAXED_TOLERANCE
        return prediction.strip().lower() == answer.strip().lower()

    return float(any(map(agrees, answers)))


def option_letter(prediction: str) -> str | None:
    """The letter that an answer to a multiple-choice question names: "B", "(b)", "B. blue", "The answer is B."."""
    text = prediction.strip()
    found = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text) or re.match(r"\(?([A-Z])(?:\)|[.:])\s", text)
    found = found or re.search(r"[Aa]nswer(?: is|:)? \(?([A-Z])\b", text)
    return found[1].upper() if found else None


def option_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Score 1 for the letter of the answer (ScienceQA)."""
    return float(option_letter(prediction) in [answer.strip().upper() for answer in answers])


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "vqa": vqa_accuracy,
    "exact": exact_match,
    "anls": anls,
    "relaxed": relaxed_accuracy,
    "option": option_accuracy,
}
"""Metrics by name: a prediction and the accepted answers to a score."""


def get_metric(name: str) -> Callable[[str, Sequence[str]], float]:
    """The metric of that name.

    Raises:
        UserError: for an unknown name, listing the known ones.
    """
    if name not in METRICS:
        raise UserError(f"no metric {name!r}; the metrics are {', '.join(METRICS)}")
    return METRICS[name]
