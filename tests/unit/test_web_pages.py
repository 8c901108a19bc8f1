"""What the pages are made of: the committed bundles are what their sources build, and every text has its Chinese."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import flask
import numpy as np
import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from flask_babel import force_locale

from labelloop.settings import WebSettings
from learning import query
from learning.query.pool import Pool
from roles.train import comparer, policy
from webapp.projects import strategies
from webapp.views import languages, sentences, strategy_texts

ROOT = Path(__file__).resolve().parents[2]
WEBAPP = ROOT / "webapp"
CHINESE = WEBAPP / "translations" / "zh" / "LC_MESSAGES"


def read_chinese() -> Catalog:
    """Return the Chinese texts."""
    with (CHINESE / "messages.po").open("rb") as file:
        return read_po(file, locale="zh")


@pytest.fixture
def chinese_app() -> flask.Flask:
    """An app that can translate and nothing else."""
    app = flask.Flask("webapp")
    app.secret_key = "tests"
    languages.install(app, WebSettings())
    return app


def test_the_committed_bundles_are_what_their_sources_build(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("no Node on this machine: apt-get install nodejs npm")
    checkout = ROOT
    if not (ROOT / "node_modules").is_dir():
        checkout = tmp_path / "checkout"
        shutil.copytree(WEBAPP / "frontend", checkout / "webapp" / "frontend")
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ROOT / name, checkout / name)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(install, cwd=checkout, check=True, capture_output=True, timeout=300)
    out = tmp_path / "dist"
    subprocess.run([node, "webapp/frontend/build.mjs", str(out)], cwd=checkout, check=True, capture_output=True, timeout=120)
    committed = {path.name: path.read_bytes() for path in (WEBAPP / "static" / "dist").iterdir()}
    built = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(built) == sorted(committed)
    assert [name for name in built if built[name] != committed[name]] == [], "run `npm run build` and commit webapp/static/dist"


def test_every_text_of_the_pages_has_a_chinese_translation() -> None:
    methods = [("views/**.py", "python"), ("templates/**.html", "jinja2")]
    found = extract_from_dir(WEBAPP, methods, keywords={"_": None, "_n": None, "gettext": None})
    texts = {message for _, _, message, _, _ in found}
    assert len(texts) > 150
    catalog = read_chinese()
    missing = [text for text in sorted(texts) if not (catalog.get(text) and catalog.get(text).string)]  # type: ignore[union-attr]
    assert missing == []


def test_translations_keep_the_figures_of_their_texts() -> None:
    parts = re.compile(r"\{\w+\}|%\(\w+\)s")
    broken = [one.id for one in read_chinese() if one.id and sorted(parts.findall(one.id)) != sorted(parts.findall(one.string))]
    assert broken == []


def test_the_compiled_texts_are_those_of_the_source() -> None:
    compiled = io.BytesIO()
    write_mo(compiled, read_chinese())
    assert (CHINESE / "messages.mo").read_bytes() == compiled.getvalue(), "run `pybabel compile -d webapp/translations`"


ADMINS = ("admin.js", "webhooks.js", "live_table.js")


def test_every_text_that_a_script_of_admins_asks_for_is_given_to_it() -> None:
    scripts = "".join(path.read_text() for path in (WEBAPP / "frontend").glob("*/*.js") if path.name in ADMINS)
    asked = set(re.findall(r'\btext\("(\w+)"', scripts))
    common = (WEBAPP / "views" / "page_texts.py").read_text().split("label_texts")[0]
    texts = common + (WEBAPP / "views" / "admin_texts.py").read_text()
    assert asked - set(re.findall(r'"([\w-]+)": _\(', texts)) == set()


def test_every_text_that_a_script_asks_for_is_given_to_it() -> None:
    scripts = "".join(path.read_text() for path in (WEBAPP / "frontend").glob("*/*.js") if path.name not in ADMINS)
    asked = set(re.findall(r'\btext\("(\w+)"', scripts))
    texts = "".join(path.read_text() for path in (WEBAPP / "views").glob("*_texts.py") if path.name != "admin_texts.py")
    given = set(re.findall(r'"(\w+)": _\(', texts))
    assert asked - given == set()
    assert {name for name in given - asked if not name.startswith(("import_", "bulk_", "reason_", "step_"))} == set()


@pytest.mark.parametrize("n_labels", [0, 13, 20, 55, 200])
@pytest.mark.parametrize("classes", [1, 3])
def test_what_the_policy_says_is_translated(chinese_app: flask.Flask, n_labels: int, classes: int) -> None:
    view = policy.PolicyView(labels=n_labels, classes=classes, held_out=5, new_labels=n_labels, last_labels=0, budget=200)
    said = [policy.next_training(view)[1], policy.stop_reason(view)]
    with chinese_app.test_request_context(), force_locale("zh"):
        for sentence in filter(None, said):
            translated = sentences.translate(sentence)
            assert sorted(re.findall(r"\d+", sentence)) == sorted(re.findall(r"\d+", translated)), translated
            assert re.search("[\u4e00-\u9fff]", translated), sentence


def test_what_the_comparer_says_is_translated_with_its_figures(chinese_app: flask.Flask) -> None:
    drafted = tuple(comparer.DraftedLabel(version="m1", draft=("a",), labels=("a",)) for _ in range(30))
    view = comparer.ComparerView(is_on=True, serving="m1", drafted=drafted, target=0.95, window=30)
    _, said = comparer.compare(view)
    with chinese_app.test_request_context(), force_locale("zh"):
        assert sentences.translate(f"resting: {said}") == "暂停训练：已达到目标：最近 30 个草稿中 30 个正确（100.0%），目标 95.0%"
        assert sentences.translate("the moon is full") == "the moon is full"


def test_what_the_strategies_say_of_themselves_is_marked_for_the_translators() -> None:
    said = {view.summary for view in strategies.list_strategies()}
    said |= {field.description for view in strategies.list_strategies() for field in view.fields}
    assert said == set(strategy_texts.TEXTS)


def test_why_an_order_failed_is_translated_with_its_figures(chinese_app: flask.Flask) -> None:
    pool = Pool(3, None, np.zeros((3, 2), np.float32), None, False, 0, labels=np.array([0, 1, 2]))
    with chinese_app.test_request_context(), force_locale("zh"):
        refused = sentences.translate(str(query.why_not("alipy_quire", pool)))
        assert refused == "策略 'alipy_quire' 无法运行：它只适用于每个条目一个标签的两个类别，此处有 3 个，见过 3 个"
        assert sentences.translate("asked for by name; 10% of the places are random") == "按名称指定；其中 10% 的位置为随机"


def test_every_category_and_kind_of_the_catalogue_has_words(chinese_app: flask.Flask) -> None:
    from webapp.kinds import catalogue
    from webapp.views import kind_names

    with chinese_app.test_request_context(headers={"Accept-Language": "zh"}):
        assert set(kind_names.category_names()) == set(catalogue.CATEGORIES)
        assert [name for name, words in kind_names.kind_names().items() if words == name] == []
        for category, (_data, kinds) in catalogue.CATEGORIES.items():
            assert all(kind_names.example_of(category, kind)["way"] for kind in kinds)
