"""How long modules and functions of the four packages are: python benchmarks/lines.py [FOLDER]

Prints the number of modules and functions, and the median and 90th percentile of their lines; comments in percent.
FOLDER is another checkout to compare with, by default this one. Takes a second.
"""

import ast
import sys
import tokenize
from pathlib import Path

import numpy as np

PACKAGES = ("analysis", "dashboard", "models", "sweep")


def main(root: Path) -> None:
    files = sorted(file for package in PACKAGES for file in (root / package).rglob("*.py"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    modules = [len(text.splitlines()) for text in texts.values() if text.strip()]
    functions = [length for text in texts.values() for length in function_lengths(text)]
    for kind, lengths in (("modules", modules), ("functions", functions)):
        middle, long = np.percentile(lengths, [50, 90])
        print(f"{kind}: {len(lengths)}, median {middle:.0f} lines, 90th percentile {long:.0f}, longest {max(lengths)}")
    comments = sum(map(comment_lines, files))
    print(f"lines: {sum(modules)}, with a comment {100 * comments / sum(modules):.1f} %")


def function_lengths(text: str) -> list[int]:
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes]


def comment_lines(file: Path) -> int:
    with file.open("rb") as stream:
        return sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(stream.readline))


if __name__ == "__main__":
    main(Path(*sys.argv[1:]) if sys.argv[1:] else Path(__file__).parents[1])
