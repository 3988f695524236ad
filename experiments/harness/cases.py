"""Cases that a run writes as it measures them, a JSON object on each line, so that it can be resumed."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from experiments.harness import command
from experiments.harness.files import json_object, named, write_whole
from experiments.harness.resume import differences

Case = TypeVar("Case")
Key = tuple[Any, ...]  # a kind of case, and the identity of one of them


def resume(path: pathlib.Path, how: Mapping[str, Any], read: Callable[[dict[str, Any]], Case]) -> list[Case]:
    """Returns the cases that an earlier run left in a file, and leaves the file ready for more.

    A line that was not finished is dropped, and one that cannot be read is left out with a note.

    Args:
        path: The file; it need not exist.
        how: What cases depend on beside what names them; see `experiments.harness.resume.identity`.
        read: Makes a case from its record.

    Raises:
        ValueError: The cases were measured with other settings, or the file does not hold cases.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    records = [json_object(line) for line in lines]
    try:
        different = differences(json.loads(lines[0]), how) if lines else []
        cases = [read(record) for record in records[1:] if record is not None]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} must hold cases of this command, a JSON object on each line: {error!r}.") from error
    if different:
        raise ValueError(
            f"{path} holds cases that were measured with other settings: {'; '.join(different)}. Set these as they "
            "were, or another hydra.run.dir."
        )
    if garbage := records.count(None):
        command.note([f"{path}: lines that cannot be read are left out, and their cases measured again: {garbage}."])
    kept = [line for line, record in zip(lines[1:], records[1:], strict=True) if record is not None]
    whole = b"".join(line + b"\n" for line in [json.dumps(how).encode(), *kept])
    write_whole(path, lambda file: file.write(whole))
    return cases


def collect(
    path: pathlib.Path,
    planned: Sequence[tuple[Key, Callable[[], Case]]],
    known: Mapping[Key, Case],
    record: Callable[[Case], Mapping[str, Any]],
    describe: Callable[[Key], str],
) -> list[Case]:
    """Returns all cases that are planned, in order; measures and keeps those that are not known, with a progress bar.

    A case that fails does not keep others from being measured.

    Args:
        path: The file, as `resume` left it.
        planned: Keys of cases, and what measures them.
        known: Cases that `resume` found.
        record: Makes a case's record.
        describe: What the progress bar says of a key.

    Raises:
        ValueError: Cases failed.
    """
    from rich.markup import escape

    cases: list[Case] = []
    failed: list[tuple[Key, Exception]] = []
    with named(path), path.open("a") as file, command.progress() as bar:
        task = bar.add_task("", total=len(planned))
        for key, measure in planned:
            bar.update(task, description=escape(describe(key)))
            case = known.get(key)
            try:
                found = measure() if case is None else case
            except Exception as error:
                failed.append((key, error))
            else:
                if case is None:
                    file.write(json.dumps(record(found), allow_nan=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                cases.append(found)
            bar.advance(task)
    if failed:
        reasons = "".join(f"\n  {describe(key)}: {command.text_of(error)}" for key, error in failed)
        raise ValueError(
            f"{len(failed)} of {len(planned)} cases failed, so there is no summary. The others are kept in {path}, and "
            f"the command measures only these if it is started again in this directory:{reasons}"
        ) from failed[0][1]
    return cases
