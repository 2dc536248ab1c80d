r"""Train the byte-level BPE of short queries that ships as src/dove/query/words.json.

    python scripts/train_query_tokenizer.py --data data/tiny-imagenet-train-0.parquet data/cifar10-train.parquet \
        data/coco128-train.parquet data/easy-vqa-train.parquet

Texts are the class names in every template, and questions. Any UTF-8 text can be encoded, as bytes are words, too.
"""

import argparse
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEMPLATES = (
    "{name}",
    "a {name}",
    "the {name}",
    "where is the {name}?",
    "show me the {name}",
    "a photo of a {name}",
    "what does the {name} look like?",
    "what is the {name} doing?",
    "what colour is the {name}?",
    "is there a {name} in the image?",
    "find the {name}",
    "the {name} in the picture",
)
SYNONYMS = {"automobile": ("car",), "airplane": ("plane",), "ship": ("boat",), "truck": ("lorry",)}
OUTPUT = Path(__file__).parent.parent / "src/dove/query/words.json"


def texts(path: str) -> set[str]:
    """Queries that one parquet file gives rise to."""
    table = pq.read_table(path)
    names = set(table["name"].to_pylist()) if "name" in table.column_names else set()
    if "names" in table.column_names:
        names |= {name for row in table["names"].to_pylist() for name in row}
    names |= {synonym for name in names for synonym in SYNONYMS.get(name, ())}
    found = {template.format(name=name) for name in names for template in TEMPLATES}
    if "questions" in table.column_names:
        found |= {question for row in table["questions"].to_pylist() for question in row}
    return {text.lower() for text in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--vocab-size", type=int, default=1000)
    options = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(sorted(set().union(*map(texts, options.data))), trainer)
    tokenizer.save(str(OUTPUT), pretty=False)
    print(f"{tokenizer.get_vocab_size()} words, {OUTPUT.stat().st_size} bytes: {OUTPUT}")


if __name__ == "__main__":
    main()
