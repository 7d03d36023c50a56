"""Where a run writes: its journal, and the output made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vllm_csp.serving.batch.formats.choice import WRITERS, OutputFormat
from vllm_csp.serving.batch.sources.photo_set import finds_masks
from vllm_csp.serving.batch.sources.source import UsageError


@dataclass(frozen=True)
class Output:
    """`path` in a format; JSON lines are their own journal, the others have one beside them."""

    path: Path
    format: OutputFormat

    @property
    def journal(self) -> Path:
        """The file that finished rows are appended to."""
        if self.format == OutputFormat.JSONL:
            return self.path
        return self.path.with_name(f"{self.path.name}.journal.jsonl")

    def check(self, source: Path, *, resume: bool) -> None:
        """Raise `UsageError` when writing here would lose something."""
        if not self.path.parent.is_dir():
            raise UsageError(f"{self.path.parent} is no folder: make it first")
        if source.exists() and any(
            one.exists() and one.samefile(source) for one in (self.path, self.journal)
        ):
            raise UsageError(f"{self.path} is the input: choose another output")
        if self.format == OutputFormat.MASKS and finds_masks(source, self.path):
            raise UsageError(
                f"{self.path} is where {source} looks: masks among the photos would be asked too"
            )
        begun = self.journal.exists() and self.journal.stat().st_size > 0
        if resume and self.path.exists() and not begun:
            raise UsageError(
                f"{self.path} is there, but not {self.journal}, from which to resume: choose "
                "another output"
            )
        if not resume and (begun or self.path.exists()):
            found = self.path if self.path.exists() else self.journal
            raise UsageError(
                f"{found} exists: add --resume to go on with that run, or choose another output"
            )

    def write(self) -> None:
        """Make the output of the journal."""
        if self.format != OutputFormat.JSONL:
            WRITERS[self.format](self.journal, self.path)
