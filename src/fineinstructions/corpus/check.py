"""An exported folder, checked from its files alone: digests, sums, the ledger, and tokens where they can be counted.

In: the folder. Out: what is wrong with it. The decision a reader would question: tokens are counted again only where
they are bytes. For other tokenizers the sums of the files are held against the ledger, which a wrong count cannot pass
unnoticed unless both are wrong alike.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fineinstructions.backends.tokenizer import BYTES, ByteTokenizer
from fineinstructions.corpus.budget import LedgerRow, ledger_problems
from fineinstructions.corpus.card import CARD_FILE
from fineinstructions.corpus.export import DOCUMENTS, PAIRS, REJECTED
from fineinstructions.corpus.layout import CORPUS_FILE, LEDGER_FILE
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.inputs import open_lines
from fineinstructions.records import Rejection
from fineinstructions.runs import Finding, Manifest, read_table
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest
from fineinstructions.runs.ledger import MANIFEST
from fineinstructions.runs.tables import read_groups

MAX_FINDINGS = 100
"""Most findings of the ledger, and of one arm."""
Row = dict[str, Any]


def is_corpora(folder: Path) -> bool:
    """Whether a folder was made by an export."""
    return (folder / CORPUS_FILE).is_file()


def check_corpora(folder: Path) -> list[Finding]:
    """What is wrong with an exported folder; empty where nothing is.

    Args:
        folder: The folder.
    """
    try:
        manifest = read_manifest(FolderFiles(folder))
        facts = json.loads((folder / CORPUS_FILE).read_text(encoding="utf-8"))
    except (DataError, ValueError) as error:
        return [Finding(str(folder), str(error))]
    if manifest is None:
        return [Finding(str(folder), "has no manifest; export again")]
    findings = [
        Finding("files", problem) for problem in file_problems(FolderFiles(folder), manifest.files, thorough=True)
    ]
    if findings:
        return findings
    findings += _check_accounts(folder, manifest)
    config = facts["config"]
    has_same = config["documents"] == "same"
    ledger = _Ledger(folder, keeps_budget=config["budget"] == "document", carries=not has_same)
    findings += [Finding(LEDGER_FILE, problem) for problem in ledger.problems]
    if ledger.left_tokens != facts["deficit_tokens"]:
        findings.append(Finding(LEDGER_FILE, f"ends with {ledger.left_tokens} tokens left, not the stated deficit"))
    cut = _cut_tokens(folder)
    for arm, figures in facts["arms"].items():
        findings += _check_arm(folder, arm, figures, facts["tokenizer"]["kind"])
        if has_same and config["format"] != "lingua":  # whose rows do not name their document
            findings += check_same_documents(folder, arm, figures)
        for source, share in figures["sources"].items():
            given = None if has_same and source == DOCUMENTS else ledger.given(source)
            if given is not None and share["tokens"] + cut[arm, source] != given:
                problem = f"{share['tokens']} tokens of {source} and {cut[arm, source]} cut, but {given} were there"
                findings.append(Finding(arm, problem))
        if list(figures["sources"]) == [PAIRS] and not figures["shuffled"] and not cut[arm, PAIRS]:
            findings += [Finding(arm, problem) for problem in _check_documents(folder, figures)]
    return findings


def files_to_upload(folder: Path) -> tuple[list[str], list[str]]:
    """Files of an export, and those that tell about the others, which go last.

    Raises:
        ConfigError: If the folder holds no export, or not as it was made.
    """
    manifest = read_manifest(FolderFiles(folder)) if is_corpora(folder) else None
    if manifest is None:
        raise ConfigError(f"{folder}: holds no corpora; give a folder that 'fineinstructions export' made")
    problems = file_problems(FolderFiles(folder), manifest.files)
    if problems:
        raise ConfigError(f"{folder}: {problems[0]}; export again")
    last = [CARD_FILE, CORPUS_FILE, MANIFEST]
    return [entry.name for entry in manifest.files if entry.name not in last], last


class _Ledger:
    """The ledger added up, with what is wrong with it."""

    def __init__(self, folder: Path, keeps_budget: bool, carries: bool) -> None:
        self._sums: Counter[str] = Counter()
        self._carries = carries
        self.left_tokens = 0
        rows = self._added_up(read_table(folder / LEDGER_FILE, LedgerRow))
        found = ledger_problems(rows, carries) if keeps_budget else iter(())
        self.problems = [problem for problem, _ in zip(found, range(MAX_FINDINGS), strict=False)]
        for _ in rows:
            pass

    def _added_up(self, rows: Iterable[LedgerRow]) -> Iterator[LedgerRow]:
        for row in rows:
            self._sums.update({DOCUMENTS: row.document_tokens, PAIRS: row.emitted_tokens})
            self.left_tokens = row.left_tokens if self._carries else self.left_tokens + row.left_tokens
            yield row

    def given(self, source: str) -> int | None:
        """Tokens that a source had to give; ``None`` where the ledger does not know."""
        return self._sums[source] if source in (DOCUMENTS, PAIRS) else None


def _check_accounts(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    counted: Counter[tuple[str, str]] = Counter()
    for rejection in read_all_rejected(folder):
        counted[rejection.stage, rejection.reason] += 1
    stated = {
        (stage, why): number
        for stage, account in manifest.stages.items()
        for why, number in {**account.rejected, **account.failed}.items()
    }
    for stage, account in manifest.stages.items():
        if account.num_missing:
            yield Finding(stage, f"lost {account.num_missing} of {account.num_in} rows")
    for key in sorted(set(stated) | set(counted)):
        if stated.get(key, 0) != counted[key]:
            yield Finding(REJECTED, f"{counted[key]} rows {' '.join(key)}, but {stated.get(key, 0)} were turned down")


def read_all_rejected(folder: Path) -> Iterator[Rejection]:
    """Rows that did not make it, in order."""
    for path in sorted((folder / REJECTED).glob("part-*.parquet")):
        yield from read_table(path, Rejection)


def _cut_tokens(folder: Path) -> Counter[tuple[str, str]]:
    """Tokens of the rows that arms had no room for, by arm and source."""
    tokens: Counter[tuple[str, str]] = Counter()
    for rejection in read_all_rejected(folder):
        if rejection.stage == "cut":
            record = json.loads(rejection.record)
            tokens[record["arm"], record["source"]] += int(rejection.value or 0)
    return tokens


def _check_arm(folder: Path, arm: str, figures: dict[str, Any], kind: str) -> Iterator[Finding]:
    """Rows and tokens of every file, and of the arm."""
    sums, by_source = Counter[str](), Counter[str]()
    for share in figures["sources"].values():
        by_source.update({"rows": share["rows"], "tokens": share["tokens"]})
    for name, stated in figures["files"].items():
        num_rows, num_tokens, knows = 0, 0, True
        for row in read_rows(folder / name):
            counted = ByteTokenizer().row_tokens([row["text"]])[0] if kind == BYTES and "text" in row else None
            told = row.get("num_tokens", counted)
            num_rows, num_tokens, knows = num_rows + 1, num_tokens + int(told or 0), knows and told is not None
            if counted is not None and told != counted:
                yield Finding(name, f"row {row['id']!r} has {counted} tokens, not {told}")
                return
        if num_rows != stated["rows"] or (knows and num_tokens != stated["tokens"]):
            yield Finding(name, f"holds {num_rows} rows and {num_tokens} tokens, not what is stated")
        sums.update({"rows": stated["rows"], "tokens": stated["tokens"]})
    for what in ("rows", "tokens"):
        if not sums[what] == by_source[what] == figures[what]:
            yield Finding(arm, f"{figures[what]} {what} stated, {sums[what]} in files, {by_source[what]} from sources")


def check_same_documents(folder: Path, arm: str, figures: dict[str, Any]) -> Iterator[Finding]:
    """An arm's documents and tokens, where it has all documents with pairs and the tokens of these."""
    wanted, most = 0, 0
    have_pairs = set[str]()
    for entry in read_table(folder / LEDGER_FILE, LedgerRow):
        wanted, most = wanted + entry.emitted_tokens, max(most, entry.emitted_tokens)
        if entry.chosen_pairs:
            have_pairs.add(entry.document_id)
    used = {row["document_id"] for name in figures["files"] for row in read_rows(folder / name)}
    if used != have_pairs:
        yield Finding(arm, f"is made of {len(used)} documents, but {len(have_pairs)} have pairs, or of others")
    if not 0 <= wanted - figures["tokens"] < max(most, 1):
        yield Finding(arm, f"has {figures['tokens']} tokens, but the pairs of its documents {wanted}")


def _check_documents(folder: Path, figures: dict[str, Any]) -> Iterator[str]:
    """Pairs of every document against the ledger, where rows still stand in its order."""
    rows = (row for name in figures["files"] for row in read_rows(folder / name))
    waiting = next(rows, None)
    for entry in read_table(folder / LEDGER_FILE, LedgerRow):
        spent = 0
        while waiting is not None and waiting["document_id"] == entry.document_id:
            spent += waiting["num_tokens"]
            waiting = next(rows, None)
        if spent != entry.emitted_tokens:
            yield f"{spent} tokens of document {entry.document_id!r}, but {entry.emitted_tokens} in the ledger"
            return
    if waiting is not None:
        yield f"a row of document {waiting['document_id']!r} does not stand in the order of the ledger"


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one file of an arm, whatever its format.

    Raises:
        DataError: If it cannot be read.
    """
    if path.suffix == ".parquet":
        for table in read_groups(path):
            yield from table.to_pylist()
        return
    try:
        with open_lines(path) as lines:
            yield from map(json.loads, lines)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); export again") from None
