"""WordNet's reader on a few lines in the format of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from intake.wordnet import read_wordnet
from labelloop.errors import IntegrityError, NotFoundError
from learning.weak import Items, apply_rules
from learning.weak.rules import Hypernym, Relation

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
FILES = {
    "data.noun": "00000100 05 n 01 animal 0 001 ~ 00000200 n 0000 | a living organism | that moves  \n"
    "00000200 05 n 02 dog 0 domestic_dog 0 002 @ 00000100 n 0000 %p 00000300 n 0000 | barks  \n"
    "00000300 05 n 01 tail 0 001 #p 00000200 n 0000 | wagged  \n",
    "index.noun": "animal n 1 1 ~ 1 1 00000100  \ndog n 1 2 @ %p 1 1 00000200  \ndomestic_dog n 1 2 @ %p 1 0 00000200  \n"
    "tail n 1 1 #p 1 0 00000300  \n",
    "noun.exc": "doggies dog doggy\n",
    "data.verb": "00000500 30 v 01 bark 0 001 + 00000200 n 0101 01 + 02 00 | make sounds  \n"
    "00000501 30 v 0a a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 001 @ 00000500 v 0000 01 + 02 00 | ten words  \n",
    "index.verb": "bark v 1 1 + 1 1 00000500  \n",
    "verb.exc": "",
    "data.adj": "00000600 00 s 01 tame 0 000 | not wild  \n",
    "index.adj": "tame a 1 0 1 1 00000600  \n",
    "adj.exc": "tamer tame\n",
    "data.adv": "",
    "index.adv": "",
    "adv.exc": "",
}


def write(folder: Path, **changed: str) -> Path:
    for name, text in {**FILES, **{name.replace("_", "."): text for name, text in changed.items()}}.items():
        (folder / name).write_text(("" if name.endswith("exc") else LICENCE) + text, encoding="latin-1")
    return folder


def test_senses_relations_and_irregular_forms_are_read(tmp_path: Path) -> None:
    base = read_wordnet(write(tmp_path))
    assert base.senses["n"]["domestic dog"] == base.senses["n"]["dog"] == (100000200,)
    assert base.relations["hyponym"] == {100000100: (100000200,)}
    assert base.relations["has-part"] == {100000200: (100000300,)}
    assert base.relations["hypernym"][200000501] == (200000500,)
    assert base.relations["derived"] == {200000500: (100000200,)}
    assert base.senses["a"]["tame"] == (300000600,)
    assert base.irregular["n"]["doggies"] == ("dog", "doggy")


def test_rules_look_words_up_in_what_was_read(tmp_path: Path) -> None:
    items = Items(
        {"text": ["Doggies bark", "domestic dogs", "wagging tails", "cats"]}, knowledge={"wn": read_wordnet(write(tmp_path))}
    )
    kinds = Hypernym(name="h", label=0, field="text", base="wn", terms=("animal.n.01",))
    parts = Relation(name="r", label=1, field="text", base="wn", relation="has-part", terms=("dog",))
    assert apply_rules([kinds, parts], items, 2).tolist() == [[0, -1], [0, -1], [-1, 1], [-1, -1]]


def test_where_it_is_not_installed_the_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="apt-get install wordnet-base"):
        read_wordnet(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"data_noun": "00000100 05 n zz animal 0 000 | x\n"},
        {"data_noun": "00000100 05 n 01 animal 0 002 ~ 00000200 n 0000 | x\n"},
        {"data_noun": "00000100 05 n 01 animal 0 001 ? 00000200 n 0000 | x\n"},
        {"index_noun": "animal n\n"},
        {"index_noun": "animal n 1 1 ~ 1 1 xyz\n"},
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, changed: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match=r"noun, line 2 is no"):
        read_wordnet(write(tmp_path, **changed))
