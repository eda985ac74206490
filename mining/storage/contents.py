"""What a configuration names by path or import: files, folders and code, digested."""

import ast
import hashlib
import importlib
import logging
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from mining import InputError
from mining.storage.files import digest_file, read_record, write_record

#: Keys whose values are places; under others a value needs a separator or a suffix to be one,
#: so that a folder called ``train`` beside the run is not taken for ``split=train``.
_PLACES = {"path", "root", "file", "folder", "directory", "checkpoint"}
#: Keys whose values are names, whatever lies in the working directory.
_NAMES = {"name", "label", "_target_"}
#: Bytes from which a digest is remembered: reading them takes longer than a run to skip.
_REMEMBERED = 2**24
#: Seconds that a file must have been left alone before its times tell its content.
_SETTLED = 2.0
_known: dict[str, str] = {}
log = logging.getLogger(__name__)


class Contents:
    """Replaces what a configuration names by what it holds.

    Args:
        cache: Folder in which digests of 16 MiB and more are remembered, under a digest of paths,
            sizes and times of change; ``None`` reads everything anew.
        ignored: Folders that do not count within others: those of outputs and of caches.
    """

    def __init__(self, cache: Path | None, ignored: Sequence[Path] = ()) -> None:
        self._cache = cache
        self._ignored = {path.resolve() for path in ignored}
        self.found: dict[str, str] = {}  # digests of 64 digits by the dotted key that names them

    def replace(self, value: Any, key: str = "") -> Any:
        """Return ``value`` with digests in place of files and folders, and beside code.

        Args:
            value: A part of the configuration.
            key: Its dotted name.
        """
        if isinstance(value, Mapping):
            return {k: self.replace(v, f"{key}.{k}".lstrip(".")) for k, v in value.items()}
        if isinstance(value, list):
            return [self.replace(item, f"{key}.{i}") for i, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        # Of a list of checkpoints each is one.
        *_, last = [part for part in key.split(".") if not part.isdigit()] or [""]
        if last == "_target_":
            digest = digest_code(value)
            return value if digest is None else [value, self._note(key, digest)]
        if names_place(last, value):
            return self._note(key, self.digest(Path(value)))
        return value

    def digest(self, path: Path) -> str:
        """Digest the content of a file, or names and contents of all files of a folder."""
        files = [path] if path.is_file() else sorted(self._walk(path, set()))
        states = [(file, file.stat()) for file in files]
        times = [(str(f.absolute()), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for f, s in states]
        state = hashlib.sha256(repr(times).encode("utf-8", "surrogateescape")).hexdigest()
        newest = max((max(s.st_mtime, s.st_ctime) for _, s in states), default=0.0)
        settled = newest < time.time() - _SETTLED
        stored = None
        if self._cache is not None and sum(s.st_size for _, s in states) >= _REMEMBERED:
            stored = self._cache / state
        if settled and state in _known:
            return _known[state]
        if settled and stored is not None and stored.is_file():
            with suppress(InputError):  # damaged
                return _known.setdefault(state, read_record(stored)["digest"])
        if path.is_file():
            digest = digest_file(path)
        else:
            lines = [f"{f.relative_to(path).as_posix()} {digest_file(f)}\n" for f in files]
            digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
        if settled:
            _known[state] = digest
            if stored is not None:
                _remember(stored, digest)
        return digest

    def _note(self, key: str, digest: str) -> str:
        self.found[key] = digest
        return digest

    def _walk(self, folder: Path, above: set[Path]) -> Iterator[Path]:
        resolved = folder.resolve()
        if resolved in self._ignored or resolved in above:  # a link may lead back up
            return
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from self._walk(entry, above | {resolved})
            elif entry.is_file():
                yield entry


def names_place(key: str, value: str) -> bool:
    """Whether the value of ``key`` is the path of a file or folder that exists."""
    if not value or key in _NAMES or "\0" in value or len(value) > 4096:
        return False
    path = Path(value)
    looks_like_one = key in _PLACES or path.suffix != "" or "/" in value or "\\" in value
    return looks_like_one and (path.is_file() or path.is_dir())


def digest_code(target: str) -> str | None:
    """Digest the module of ``target``, and those of the user's that it imports, unimported.

    What belongs to Python, to this package or to an installed distribution does not count: it has
    a version. Imports inside of functions count, those by a computed name cannot be seen.

    Args:
        target: An importable name, ``package.module.Class`` for instance.

    Returns:
        64 hexadecimal digits; ``None`` if no module of it is the user's own.
    """
    importlib.invalidate_caches()  # a file may have been written a moment ago
    found: dict[str, str] = {}
    waiting = [target]
    while waiting:
        for name, spec in _specs(waiting.pop()):
            if name in found or not _is_own(spec):
                continue
            assert spec.origin is not None
            source = Path(spec.origin).read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()
            if spec.origin.endswith(".py"):
                package = name if spec.submodule_search_locations else name.rpartition(".")[0]
                waiting += _imports(source, package)
    if not found:
        return None
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def _specs(target: str) -> Iterator[tuple[str, ModuleSpec]]:
    """Find the packages and the module that importing ``target`` runs."""
    name, *rest = target.split(".")
    try:
        spec = find_spec(name) if name else None
    except (ImportError, ValueError):  # __main__ and the like have none
        return
    while spec is not None:
        yield name, spec
        if not rest or spec.submodule_search_locations is None:
            return
        name = f"{name}.{rest.pop(0)}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)


def _is_own(spec: ModuleSpec) -> bool:
    """Whether a module is the user's, and no part of Python, this package or a distribution."""
    if spec.name.partition(".")[0] in {"mining", *sys.stdlib_module_names} or not spec.has_location:
        return False
    path = Path(spec.origin or "")
    library = Path(sysconfig.get_path("stdlib"))
    return path.is_file() and not (
        {"site-packages", "dist-packages"} & set(path.parts) or library in path.parents
    )


def _imports(source: bytes, package: str) -> list[str]:
    """List the names that a module imports; of ``from a import b`` both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # importing it will say so
        return []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            try:
                module = resolve_name(module, package)
            except ImportError:  # beyond the top: importing it will say so
                continue
            names += [f"{module}.{alias.name}" for alias in node.names]
    return names


def _remember(path: Path, digest: str) -> None:
    try:
        write_record(path, {"digest": digest})
    except OSError as error:  # a folder that cannot be written costs time alone
        log.debug("cannot remember a digest in %s: %s", path, error)
