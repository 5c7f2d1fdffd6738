"""Loading a domain: read, checked as a whole, and frozen.

`load_domain` never raises for bad input: it returns every finding at once. `open_domain` raises
InputError with all errors. Nothing is read but the domain's folder and the files named by the
caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from specs import yaml_source as source
from specs.checker import check_domain
from specs.corpus import check_documents, read_documents, read_personas, read_rows
from specs.domain import MAX_TURNS, Document, Domain, Persona, Side
from specs.errors import Finding, InputError, Where, nearest
from specs.expressions import Template
from specs.goal_checks import goal_findings
from specs.graph_reader import Outline, read_edges, read_outline, read_states
from specs.reading import FINDING_LIMIT, Reader
from specs.scopes import document_needs
from specs.seeds import digest
from specs.speech_reader import read_intents
from specs.trait_reader import read_traits
from specs.world_reader import read_goals, read_memory, read_roles, read_tools

SHIPPED = Path(__file__).parent / "domains"
FILE = "domain.yaml"
PERSONAS = "personas.jsonl"

_KEYS = frozenset(
    {
        "domain",
        "description",
        "open",
        "corpus",
        "personas",
        "memory",
        "goals",
        "roles",
        "tools",
        "intents",
        "states",
        "groups",
        "edges",
        "start",
        "end",
        "subgoals",
        "max_turns",
        "closing",
        "traits",
    }
)


def open_domain(
    path: str | Path, corpus: Path | None = None, personas: Path | None = None
) -> Domain:
    """Return a domain.

    Args:
        path: a folder with `domain.yaml`, that file, or the name of a shipped domain.
        corpus: documents in the place of the domain's own.
        personas: personas in the place of the domain's own.

    Raises:
        InputError: with every error; warnings are dropped.
    """
    domain, findings = load_domain(path, corpus, personas)
    if domain is None:
        raise InputError([finding for finding in findings if finding.severity == "error"])
    return domain


def load_domain(
    path: str | Path, corpus: Path | None = None, personas: Path | None = None
) -> tuple[Domain | None, list[Finding]]:
    """Return a domain, or None when it has errors, and all findings in the order of the files.

    The arguments are those of `open_domain`.
    """
    file, findings = locate(path)
    if file is None:
        return None, findings
    try:
        data = file.read_bytes()
        folder = file.parent.resolve()
    except OSError as error:
        return None, [Finding(Where(str(file)), f"cannot be read: {error.strerror}")]
    root, findings = source.read_yaml(data, str(file))
    if root is None:
        return None, findings or [Finding(Where(str(file)), "the file is empty")]
    reader = Reader(folder, str(file))
    reader.findings += findings
    given = (Path(one) if one is not None else None for one in (corpus, personas))
    domain = _build(reader, root, data, *given)
    return _verdict(domain, reader.findings)


def _verdict(domain: Domain, findings: list[Finding]) -> tuple[Domain | None, list[Finding]]:
    unique = sorted(dict.fromkeys(findings), key=lambda finding: finding.where)
    failed = any(finding.severity == "error" for finding in unique)
    return (None if failed else domain), unique[:FINDING_LIMIT]


def locate(path: str | Path) -> tuple[Path | None, list[Finding]]:
    """Return the `domain.yaml` that a path or the name of a shipped domain means."""
    given = Path(path)
    try:
        if given.is_file():
            return given, []
        if (given / FILE).is_file():
            return given / FILE, []
        shipped = SHIPPED / str(path) / FILE
        if given.name == str(path) and shipped.is_file():
            return shipped, []
        names = [one.parent.name for one in sorted(SHIPPED.glob(f"*/{FILE}"))]
    except (OSError, ValueError) as error:
        return None, [Finding(Where(str(path)), f"is no domain: {error}")]
    message = f"is neither a folder with {FILE} nor a shipped domain{nearest(str(path), names)}"
    hint = f"shipped domains: {', '.join(names)}" if names else ""
    return None, [Finding(Where(str(path)), message, hint)]


@dataclass(slots=True)
class _Files:
    """What was read of corpus and personas."""

    documents: tuple[Document, ...] = ()
    personas: tuple[Persona, ...] = ()
    corpus_path: Path | None = None
    corpus_file: str = ""
    embed: Template | None = None
    contents: list[object] = field(default_factory=list)


def _build(
    reader: Reader, node: source.Node, data: bytes, corpus: Path | None, personas: Path | None
) -> Domain:
    root = reader.mapping(node, "a domain", _KEYS)
    items = root.items
    outline = read_outline(reader, root)
    outline.has_corpus = corpus is not None or "corpus" in items
    files = _Files()
    _read_corpus(reader, items.get("corpus"), corpus, files)
    _read_personas(reader, items.get("personas"), personas, files)
    memory = read_memory(reader, items.get("memory"))
    user, agent = read_roles(reader, items.get("roles"))
    intents = read_intents(reader, items.get("intents"))
    open_ = reader.choice(items.get("open"), "`open`", ("agent", "user"), "agent")
    closing = tuple(one.text.strip() for one in reader.names(items.get("closing"), "`closing`"))
    manners = read_traits(reader, items.get("traits"), closing)
    domain = Domain(
        name=reader.text(items.get("domain"), "`domain`") or reader.folder.name,
        description=reader.text(items.get("description"), "`description`"),
        folder=reader.folder,
        digest="",
        open=cast(Side, open_),
        documents=files.documents,
        personas=files.personas,
        memory=memory,
        goals=read_goals(reader, items.get("goals")),
        user=user,
        agent=agent,
        tools=read_tools(reader, items.get("tools")),
        intents=intents,
        states=read_states(reader, items.get("states")),
        edges=read_edges(reader, items.get("edges"), intents, outline),
        start=outline.start.text,
        end=frozenset(name.text.strip() for name in outline.end),
        subgoals=tuple(dict.fromkeys(name.text.strip() for name in outline.subgoals)),
        max_turns=_max_turns(reader, items.get("max_turns")),
        closing=closing,
        forbidden_traits=manners.forbidden,
        trait_speeches=manners.speeches,
        facts=manners.facts,
        mishearing=manners.mishearing,
        corpus_path=files.corpus_path,
    )
    return _checked(reader, domain, outline, files, data)


def _checked(
    reader: Reader, domain: Domain, outline: Outline, files: _Files, data: bytes
) -> Domain:
    reader.findings += check_domain(domain, outline)
    needs = document_needs(domain, files.embed)
    reader.findings += check_documents(domain.documents, needs, files.corpus_file)
    if domain.documents or not outline.has_corpus:
        reader.findings += goal_findings(domain, list(reader.findings), files.corpus_file)
    contents = [part for name in sorted(reader.files) for part in (name, reader.files[name])]
    return replace(domain, digest=digest(FILE, data, *contents, *files.contents))


def _max_turns(reader: Reader, node: source.Node | None) -> int:
    turns = reader.number(node, "`max_turns`", 80, "at least 2 are needed")
    where = node.where if node is not None else Where(reader.file)
    if turns > MAX_TURNS:
        reader.error(where, f"`max_turns` is too large: give at most {MAX_TURNS:,}")
    elif turns != int(turns) or turns < 2:
        reader.error(where, "`max_turns` must be a whole number, at least 2")
    else:
        return int(turns)
    return 80


def _read_corpus(
    reader: Reader, node: source.Node | None, given: Path | None, files: _Files
) -> None:
    if isinstance(node, source.Scalar) and node.text:
        node = source.Mapping(node.where, {"path": node})
    items = reader.mapping(node, "`corpus`", ("path", "id", "embed")).items
    if "embed" in items:
        files.embed = reader.template(items["embed"], "`embed`")
    path = given
    if path is None and "path" in items:
        path = reader.inside(items["path"], "the corpus")
    elif path is None:
        if node is not None:
            reader.error(node.where, "`corpus` needs `path`, a file in the domain's folder")
        return
    data = _bytes(reader, path, "the corpus") if path is not None else None
    if path is None or data is None:
        return
    files.corpus_path, files.corpus_file = path, _shown(reader, path)
    files.contents += ["corpus", data]
    rows, findings = read_rows(data, path, files.corpus_file)
    reader.findings += findings
    if not rows and not findings:
        reader.error(Where(files.corpus_file), "the corpus holds no documents")
    id_field = reader.text(items.get("id"), "`id`", "id") or "id"
    files.documents, findings = read_documents(rows, id_field, files.embed, files.corpus_file)
    reader.findings += findings


def _read_personas(
    reader: Reader, node: source.Node | None, given: Path | None, files: _Files
) -> None:
    if node is None and (reader.folder / PERSONAS).is_file():
        node = source.Scalar(PERSONAS, Where(reader.file))
    elif isinstance(node, source.Mapping):
        node = reader.mapping(node, "`personas`", ("path",)).items.get("path")
    path = given
    if path is None and node is not None:
        path = reader.inside(node, "the personas")
    data = _bytes(reader, path, "the personas") if path is not None else None
    if path is None or data is None:
        return
    file = _shown(reader, path)
    files.contents += ["personas", data]
    rows, findings = read_rows(data, path, file)
    reader.findings += findings
    files.personas, findings = read_personas(rows, file)
    reader.findings += findings


def _bytes(reader: Reader, path: Path, what: str) -> bytes | None:
    try:
        if not path.is_file():
            reader.error(Where(str(path)), f"{what}: there is no such file")
            return None
        return path.read_bytes()
    except OSError as error:
        reader.error(Where(str(path)), f"{what} cannot be read: {error.strerror}")
        return None


def _shown(reader: Reader, path: Path) -> str:
    """Return how findings name a file: beside the domain's file when it is in its folder."""
    if path.is_absolute() and path.is_relative_to(reader.folder):
        return str(Path(reader.file).parent / path.relative_to(reader.folder))
    return str(path)
