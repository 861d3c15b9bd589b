"""The commands on the pages, as words, and what of this repository each one starts."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "ds_configs", "slurm")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *(ROOT / folder / "README.md" for folder in FOLDERS),
]
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:make|torchrun|sbatch|sft-[a-z]+|python|pytest|pip|sudo|launch/\S+\.sh"
    r"|tail|wandb|touch|source|git|deepspeed|scontrol) "
)
SCRIPTS = {"train.sh": "sft_dist.train", "evaluate.sh": "sft_dist.evaluate"}


@dataclass(frozen=True)
class Command:
    """One command of a page."""

    page: str
    words: tuple[str, ...]

    def __str__(self):
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def target(self):
        """What it starts: a module with dots, `make NAME`, or the foreign program's name."""
        first = self.words[0]
        if first == "make":
            return f"make {self.words[1]}"
        if first.startswith("sft-"):
            return first.replace("sft-", "sft_dist.")
        for word in self.words:
            if Path(word).name in SCRIPTS:
                return SCRIPTS[Path(word).name]
            if word.startswith("launch/"):
                return "sft_dist.train"  # all its other scripts start that
            if word.endswith(".py"):
                return word.removesuffix(".py").replace("/", ".")
        if "-m" in self.words and first in ("python", "torchrun"):
            return self.words[self.words.index("-m") + 1]
        return first

    @property
    def flags(self):
        """The words after what is started."""
        script = (".sh", ".py")
        start = next((n for n, word in enumerate(self.words) if word.endswith(script)), None)
        if start is None:
            start = self.words.index("-m") + 1 if "-m" in self.words else 0
        return [word for word in self.words[start + 1 :] if word != "--"]


def commands_of(page):
    """The commands in a page's blocks of code; a line that ends in a backslash goes on."""
    text = re.sub(r"\\\n\s*", "", page.read_text())
    blocks = re.findall(r"^```(?:bash|sh)\n(.*?)^```", text, flags=re.M | re.S)
    outside = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"^    (\S.*)$", outside, flags=re.M)
    for line in lines:
        if PROGRAM.match(line):
            words = shlex.split(line, comments=True)
            kept = tuple(word for word in words if not re.match(r"[A-Z_]+=", word))
            yield Command(str(page.relative_to(ROOT)), kept)
