"""Embed every photo of a source into one table; resumable, and never all in memory."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fieldmark import storage
from fieldmark.data.catalog import Catalog
from fieldmark.errors import MissingExtraError, OutputError
from fieldmark.nn.inference import Precision
from fieldmark.workflows.engines import Chosen, Embeds, Engine, choose, load

CHUNK = 512
"""Photos per saved piece: what a kill can cost."""
_SUFFIXES = (".parquet", ".npz")
_KEY = "fieldmark_key"
_IDENTITY = "fieldmark_encoder"
_ENGINE = "fieldmark_engine"


class EmbedResult(NamedTuple):
    """What was written."""

    summary: dict[str, Any]
    text: str


class _Chunk(NamedTuple):
    paths: list[str]
    hashes: list[str]
    embeddings: npt.NDArray[np.float32]
    problems: list[dict[str, str]]


def embed_photos(
    encoder: Path,
    photos: Path,
    out: Path,
    *,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Write a table of path, content hash and embedding; run again to go on after a stop.

    Args:
        encoder: Encoder folder, a run folder, or an ONNX file of ``fieldmark export``.
        photos: Folder, table or tar shard.
        out: ``.parquet`` or ``.npz`` (arrays ``path``, ``content_hash``, ``embedding``).
        batch_size: Photos per forward pass.
        workers: Decoding threads; by default one per processor.
        device: ``auto``, ``cpu``, ``cuda`` …
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        engine: ``torch``, ``onnx``, or ``auto``: the faster one where many photos are embedded on a
            CPU; what is embedded is the same (cosine 0.9999). The table notes which it was.
        overwrite: Whether a table of other photos or another encoder may be replaced.
        progress: Called with photos done and photos in all.

    Returns:
        Counts and a sentence. Photos that could not be read, or are damaged, are listed in
        ``OUT.problems.csv``; damaged ones are embedded all the same.

    Raises:
        OutputError: If ``out`` cannot be written or holds something else.
        MissingExtraError: If Parquet or ONNX is asked for and its package is absent.
    """
    _check(out)
    catalog = Catalog.open(photos)
    loaded = load(Path(encoder), engine=engine, device=device, precision=precision)
    key = _key(loaded, catalog, precision)
    total = len(catalog)
    if out.exists() and not overwrite:
        if _key_of(out) == key:
            used = _note_of(out, _ENGINE) or "torch"
            return _result(out, loaded, used, total, *_counts(out), already=True)
        raise OutputError(
            f"{out} exists and holds something else than embeddings of these photos by this encoder; "
            "remove it, choose another name, or add --overwrite."
        )
    work = out.with_name(f".{out.name}.partial")
    _start(work, key)
    chosen = _resumed(work, loaded, catalog, engine, batch_size)
    spans = [range(begin, min(begin + CHUNK, total)) for begin in range(0, total, CHUNK)]
    files = [work / f"chunk-{number:06d}.npz" for number in range(len(spans))]
    for span, file in zip(spans, files, strict=True):
        if not file.is_file():
            chunk = _embed(chosen.encoder, catalog, span, batch_size, workers)
            storage.write_bytes(file, _pack(chunk))
        if progress:
            progress(span.stop, total)
    note = {_KEY: key, _IDENTITY: loaded.identity, _ENGINE: chosen.name}
    chunks = (_unpack(file.read_bytes()) for file in files)
    problems = _write(out, chunks, loaded.dim, note)
    _write_problems(out, problems)
    shutil.rmtree(work, ignore_errors=True)
    refused = sum(problem["status"] == "refused" for problem in problems)
    return _result(out, loaded, chosen.name, total, refused, len(problems) - refused, already=False)


def _resumed(
    work: Path, encoder: Embeds, catalog: Catalog, engine: Engine, batch_size: int
) -> Chosen:
    """The engine that began a job goes on with it, unless another is asked for."""
    note = work / "engine.json"
    if engine == "auto" and note.is_file():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            before = json.loads(note.read_text(encoding="utf-8"))["engine"]
            engine = before if before in {"torch", "onnx"} else engine
    chosen = choose(encoder, catalog, engine, kept=work / "engine.onnx", batch_size=batch_size)
    storage.write_json(note, {"engine": chosen.name, "why": chosen.why})
    return chosen


def _embed(
    encoder: Embeds, catalog: Catalog, span: range, batch_size: int, workers: int | None
) -> _Chunk:
    chunk = _Chunk([], [], np.zeros((0, encoder.dim), np.float32), [])
    rows: list[npt.NDArray[np.float32]] = []
    for item in encoder.stream(catalog, batch_size=batch_size, workers=workers, rows=span):
        path = catalog[span[item.position]].path
        if item.problem is not None:
            status = "refused" if item.embedding is None else "damaged"
            detail = item.problem.detail.removeprefix(f"{path}: ")
            chunk.problems.append(
                {"path": path, "status": status, "code": item.problem.code, "detail": detail}
            )
        if item.embedding is not None:
            chunk.paths.append(path)
            chunk.hashes.append(item.content_hash or "")
            rows.append(item.embedding)
    return chunk._replace(embeddings=np.stack(rows)) if rows else chunk


def _check(out: Path) -> None:
    if out.suffix not in _SUFFIXES:
        raise OutputError(f"--out must end in .parquet or .npz, got '{out.name}'.")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; give the name of a file to write.")
    if out.suffix == ".parquet":
        _parquet()
    storage.make_folder(out.parent)


def _parquet() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "to write Parquet") from None
    return pyarrow


def _key(encoder: Embeds, catalog: Catalog, precision: str) -> str:
    """Names the job: same encoder, same photos (by path, size and time of change)."""
    digest = hashlib.sha256(f"{encoder.identity} {precision}".encode())
    for row in catalog.rows:
        file = catalog.file(row.row)
        stamp = ""
        if file is not None:
            try:
                status = file.stat()
                stamp = f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                stamp = "gone"
        digest.update(f"\0{row.path}\0{stamp}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _start(work: Path, key: str) -> None:
    """Keep what an interrupted run of the same job left; throw away any other's."""
    manifest = work / "job.json"
    try:
        same = json.loads(manifest.read_text(encoding="utf-8"))["key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        shutil.rmtree(work, ignore_errors=True)
        storage.make_folder(work)
        storage.write_json(manifest, {"key": key})


def _pack(chunk: _Chunk) -> bytes:
    buffer = io.BytesIO()
    text = json.dumps([chunk.paths, chunk.hashes, chunk.problems])
    np.savez(buffer, embeddings=chunk.embeddings, text=np.frombuffer(text.encode(), np.uint8))
    return buffer.getvalue()


def _unpack(data: bytes) -> _Chunk:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        paths, hashes, problems = json.loads(arrays["text"].tobytes().decode())
        return _Chunk(paths, hashes, arrays["embeddings"], problems)


def _write(
    out: Path, chunks: Iterator[_Chunk], dim: int, note: dict[str, str]
) -> list[dict[str, str]]:
    aside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    writer = _write_parquet if out.suffix == ".parquet" else _write_npz
    problems: list[dict[str, str]] = []

    def good() -> Iterator[_Chunk]:
        for chunk in chunks:
            problems.extend(chunk.problems)
            yield chunk

    with storage.storage_errors(out):
        try:
            writer(aside, good(), dim, note)
            storage.sync_file(aside)
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)
        storage.sync_folder(out.parent)
    return problems


def _write_parquet(path: Path, chunks: Iterator[_Chunk], dim: int, note: dict[str, str]) -> None:
    arrow = _parquet()
    schema = arrow.schema(
        [
            ("path", arrow.string()),
            ("content_hash", arrow.string()),
            ("embedding", arrow.list_(arrow.float32(), dim)),
        ],
        metadata=note,
    )
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for chunk in chunks:
            flat = arrow.array(chunk.embeddings.reshape(-1))
            vectors = arrow.FixedSizeListArray.from_arrays(flat, dim)
            table = arrow.table([_text(chunk.paths), chunk.hashes, vectors], schema=schema)
            writer.write_table(table)


def _text(paths: list[str]) -> list[str]:
    # File names need not be valid UTF-8, tables must be.
    return [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in paths]


def _write_npz(path: Path, chunks: Iterator[_Chunk], dim: int, note: dict[str, str]) -> None:
    paths: list[str] = []
    hashes: list[str] = []
    flat = path.with_name(path.name + ".rows")
    try:
        with flat.open("wb") as rows:
            for chunk in chunks:
                rows.write(np.ascontiguousarray(chunk.embeddings, dtype="<f4").tobytes())
                paths += _text(chunk.paths)
                hashes += chunk.hashes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), dim)}
            with archive.open("embedding.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                with flat.open("rb") as rows:
                    shutil.copyfileobj(rows, member, 2**20)
            texts = {"path": paths, "content_hash": hashes}
            scalars = {name: np.asarray(value) for name, value in note.items()}
            arrays = {name: np.asarray(values, dtype=np.str_) for name, values in texts.items()}
            for name, array in (arrays | scalars).items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    finally:
        flat.unlink(missing_ok=True)


def _key_of(out: Path) -> str | None:
    return _note_of(out, _KEY)


def _note_of(out: Path, name: str) -> str | None:
    try:
        if out.suffix == ".npz":
            with np.load(out, allow_pickle=False) as arrays:
                return str(arrays[name])
        metadata = _parquet().parquet.read_schema(out).metadata or {}
        return str(metadata[name.encode()].decode())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _problem_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.problems.csv")


def _write_problems(out: Path, problems: list[dict[str, str]]) -> None:
    path = _problem_file(out)
    if not problems:
        # A list left by an earlier run would accuse good photos.
        path.unlink(missing_ok=True)
        return
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, ["path", "status", "code", "detail"])
    writer.writeheader()
    for problem in problems:
        path_text = _text([problem["path"]])[0]
        writer.writerow({**problem, "path": path_text})
    storage.write_text(path, buffer.getvalue())


def _counts(out: Path) -> tuple[int, int]:
    path = _problem_file(out)
    if not path.is_file():
        return 0, 0
    with path.open(encoding="utf-8", newline="") as file:
        statuses = [row["status"] for row in csv.DictReader(file)]
    return statuses.count("refused"), statuses.count("damaged")


def _result(
    out: Path,
    encoder: Embeds,
    engine: str,
    total: int,
    refused: int,
    damaged: int,
    *,
    already: bool,
) -> EmbedResult:
    listed = refused + damaged
    summary = {
        "out": str(out),
        "photos": total,
        "embedded": total - refused,
        "refused": refused,
        "damaged": damaged,
        "problems": str(_problem_file(out)) if listed else None,
        "dim": encoder.dim,
        "encoder": encoder.identity,
        "engine": engine,
        "already_complete": already,
    }
    verb = "already holds" if already else "written:"
    text = f"{out} {verb} {total - refused} embeddings of {encoder.dim} numbers."
    if listed:
        text += f" {refused} photos refused, {damaged} damaged: {_problem_file(out)}."
    return EmbedResult(summary, text)
