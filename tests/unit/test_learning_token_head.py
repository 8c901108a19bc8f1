"""The tagger of spans learns, resumes bit-equal, and answers bad input as documented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intake.encoders import find_encoder
from intake.encoders.base import set_threads
from intake.encoders.minilm_tokens import MAX_PIECES, MiniLmTokens
from intake.encoders.words import find_words, hashes_of
from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import find_algorithm
from learning.algorithms.token_model import TokenModel
from learning.algorithms.word_features import Sight, keys_of, see, vocabulary
from learning.metrics_regions import span_f1
from learning.query import select
from learning.regions import Regions
from learning.token_rows import HASH_BITS, MAX_WORDS, VECTOR, WIDTH, pooled, read_rows, write_row

PEOPLE = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Ken Thompson", "Niklaus Wirth"]
PLACES = ["Paris", "Zürich", "New York", "Oslo", "San Marino", "Lima", "Porto Alegre"]
SAYINGS = ["{0} met {1} in {2} .", "in {2} we saw {0}", "@bot ask {0} about trains", "nothing here 12:30", "{0} left {2} for {1}"]


def sentences(n: int, seed: int) -> tuple[list[str], list[Regions]]:
    rng, texts, spans = np.random.default_rng(seed), [], []
    for _ in range(n):
        names = [PEOPLE[rng.integers(7)], PEOPLE[rng.integers(7)], PLACES[rng.integers(7)]]
        text, found = "", []
        for piece in SAYINGS[rng.integers(len(SAYINGS))].replace("{", "\0{").replace("}", "}\0").split("\0"):
            if piece.startswith("{"):
                which = int(piece[1])
                found.append((len(text), len(text) + len(names[which]), int(which == 2)))
                piece = names[which]
            text += piece
        texts.append(text)
        spans.append(regions(*found))
    return texts, spans


def regions(*spans: tuple[float, float, int]) -> Regions:
    where = np.array([s[:2] for s in spans], np.float32).reshape(-1, 2)
    return Regions(where, np.array([s[2] for s in spans], np.int64), np.ones(len(spans), np.float32))


def rows(texts: Sequence[str]) -> NDArray[np.float32]:
    """Return rows as the encoder writes them, with vectors that say nothing: the looks decide, and no model runs."""
    out = np.zeros((len(texts), WIDTH), np.float32)
    for n, text in enumerate(texts):
        words = find_words(text, MAX_WORDS)
        looks = np.array([hashes_of(text[a:b], HASH_BITS) for a, b in words]).reshape(-1, 5)
        vectors = np.random.default_rng(n).standard_normal((len(words), VECTOR)).astype(np.float32)
        out[n] = write_row(np.array(words, np.int64).reshape(-1, 2), looks, vectors)
    return out


TEXTS, SPANS = sentences(60, 0)
X = rows(TEXTS)


def start(x: Any = X, y: Any = SPANS, k: int = 2, **more: Any) -> Any:
    return find_algorithm("token-head").start(x, y, k, **more)


def finish(training: Any) -> list[float]:
    return [training.advance() for _ in range(training.steps - training.step)]


@pytest.fixture(scope="module")
def model() -> TokenModel:
    training = start(seed=1)
    losses = finish(training)
    assert losses[-1] < losses[0] / 10
    found: TokenModel = training.model()
    return found


def test_it_finds_names_in_new_sentences_exactly_on_the_text(model: TokenModel) -> None:
    texts, truth = sentences(40, 1)
    found = model.predict_regions(rows(texts))
    assert span_f1(truth, found) > 0.9
    for text, one in zip(texts, found, strict=True):
        assert one.where.dtype == one.scores.dtype == np.float32
        assert (np.diff(one.scores) <= 0).all()
        assert ((one.scores > 0) & (one.scores <= 1)).all()
        for a, b in one.where.astype(int):
            assert text[a:b] == text[a:b].strip() != ""
    proba = model.predict_proba(rows(texts))
    assert proba.shape == (40, 2)
    assert proba[texts.index("nothing here 12:30")].max() < 0.5


def test_surer_spans_are_right_more_often(model: TokenModel) -> None:
    model_of_few = start(X[:8], SPANS[:8], seed=2, epoch=3)
    finish(model_of_few)
    texts, truth = sentences(80, 3)
    found = model_of_few.model().predict_regions(rows(texts))
    pairs = [
        (score, any((t == w).all() and k == label for t, k in zip(true.where, true.labels, strict=True)))
        for true, said in zip(truth, found, strict=True)
        for w, label, score in zip(said.where, said.labels, said.scores, strict=True)
    ]
    scores, hits = np.array(pairs, float).T
    order = np.argsort(scores)
    assert hits[order[len(order) // 2 :]].mean() > hits[order[: len(order) // 2]].mean()


def test_the_parts_are_marginals_that_span_uncertainty_takes(model: TokenModel) -> None:
    strange = rows(["Barbara Turing saw Lima Hopper Paris", "nothing here 12:30", ""])
    parts, starts = model.parts(strange)
    assert starts.tolist() == [0, 6, 11, 11]
    np.testing.assert_allclose(parts.sum(axis=1), 1, atol=1e-5)
    assert parts.shape == (11, 5)
    chosen = select("span_uncertainty", proba=None, features=None, parts=parts, part_starts=starts, n=1)
    assert chosen.indices.tolist() == [0]
    assert model.parts(strange[:0])[0].shape == (0, 5)


def test_after_a_restore_the_losses_are_bit_equal_to_an_uninterrupted_run() -> None:
    whole = start(seed=4, epoch=3)
    losses = finish(whole)
    first = start(seed=4, epoch=3)
    for _ in range(3):
        first.advance()
    state = first.state()
    first.advance()
    second = start(seed=4, epoch=3)
    second.restore(state)
    assert second.step == 3
    assert finish(second) == losses[3:]
    assert np.array_equal(second.model().parts(X)[0], whole.model().parts(X)[0])
    with pytest.raises(InvalidInputError, match="done"):
        second.advance()
    with pytest.raises(IntegrityError):
        start(X[:20], SPANS[:20], seed=4, epoch=6).restore(state)
    with pytest.raises(IntegrityError):
        start(seed=4, epoch=3).restore({})


def test_another_seed_sees_other_texts() -> None:
    assert finish(start(seed=1, epoch=2)) != finish(start(seed=2, epoch=2))


def test_a_saved_model_answers_the_same_after_loading(model: TokenModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    assert [p.suffix for p in tmp_path.iterdir()] == [".safetensors"]
    loaded = find_algorithm("token-head").load(tmp_path)
    assert isinstance(loaded, TokenModel)
    for one, other in zip(loaded.predict_regions(X), model.predict_regions(X), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    (tmp_path / "token-head.safetensors").write_bytes(b"\x80\x04 not a model")
    with pytest.raises(IntegrityError):
        find_algorithm("token-head").load(tmp_path)


def test_an_incremental_start_begins_where_the_serving_model_is_and_others_start_anew(model: TokenModel) -> None:
    texts, spans = sentences(30, 7)
    x = np.concatenate([X, rows(texts)])
    warm, cold = start(x, SPANS + spans, start_from=model), start(x, SPANS + spans)
    assert warm.advance() < cold.advance() / 3
    again = start(start_from=model).model()
    np.testing.assert_allclose(again.parts(X)[0], model.parts(X)[0], atol=1e-5)
    losses = finish(start(X, SPANS, 3, epoch=1, seed=5))
    assert finish(start(X, SPANS, 3, epoch=1, seed=5, start_from=model)) == losses  # of two labels, this one has three


def test_a_label_without_a_span_is_never_found() -> None:
    training = start(X, SPANS, 4, epoch=2)
    finish(training)
    found = training.model().predict_regions(X)
    assert {int(k) for one in found for k in one.labels} <= {0, 1}
    assert (training.model().parts(X)[0][:, 5:] == 0).all()


def test_spans_where_no_word_is_seen_give_a_model_that_finds_nothing() -> None:
    training = start(X[:4], [regions((500, 520, 0))] * 4, epoch=1)
    finish(training)
    assert all(len(one.labels) == 0 for one in training.model().predict_regions(X))


def test_scores_see_the_neighbours_of_the_same_text_alone_and_the_gradients_are_theirs() -> None:
    words = read_rows(rows(["Ada met", "", "Grace in New York", "Oslo"]))
    keys = keys_of(words)
    seen = see(words, keys, Sight(vocabulary(keys), np.zeros(VECTOR, np.float32), 1.0))
    rng = np.random.default_rng(0)
    vector, looks = (rng.standard_normal((n, 3)).astype(np.float32) for n in (3 * VECTOR, seen.looks.shape[1]))
    scores = seen.scores(vector, looks)
    for place, (before, after) in enumerate([(None, 1), (0, None), (None, 3), (2, 4), (3, 5), (4, None), (None, None)]):
        wanted = seen.looks[[place]] @ looks + seen.vectors[place] @ vector[VECTOR : 2 * VECTOR]
        wanted += 0 if before is None else seen.vectors[before] @ vector[:VECTOR]
        wanted += 0 if after is None else seen.vectors[after] @ vector[2 * VECTOR :]
        np.testing.assert_allclose(scores[place], wanted[0], rtol=1e-3, atol=1e-3)
    by_score = rng.standard_normal(scores.shape).astype(np.float32)
    by_vector, by_look = seen.gradients(by_score)
    assert (by_vector * vector).sum() + (by_look * looks).sum() == pytest.approx((by_score * scores).sum(), rel=1e-3)
    one, at = seen.take(np.array([2, 3]))
    assert at.tolist() == [2, 3, 4, 5, 6]
    np.testing.assert_allclose(one.scores(vector, looks), scores[2:], rtol=1e-4, atol=1e-3)


def nan_rows(which: Any) -> NDArray[np.float32]:
    x = X[:3].copy()
    x[1, which] = np.nan
    return x


BAD: list[tuple[Any, Any, str]] = [
    (X[:2], [regions((4, 4, 0)), regions()], "item 0 has the region"),
    (X[:2], [regions(), regions((np.nan, 4, 0))], "item 1 has the region"),
    (X[:2], [regions(), regions((-1, 4, 0))], "item 1 has a span that begins at -1"),
    (X[:2], [regions((0, 4, 2)), regions()], "item 0 has labels"),
    (X[:2], [regions(), regions()], "none of the 2 items has a region"),
    (X[:2], [regions((0, 4, 0))], "1 items with regions for 2 rows"),
    (X[:0], [], "0 items"),
    (X[:1], [Regions(np.full((1, 4), 0.5, np.float32), np.zeros(1, np.int64), np.ones(1, np.float32))], "item 0 has boxes"),
    (np.ones((2, 384), np.float32), SPANS[:2], "use the encoder minilm-tokens"),
    (np.zeros((2, WIDTH), np.float32), [regions((0, 4, 0))] * 2, "none of the 2 texts has a word"),
    (nan_rows(slice(None)), SPANS[:3], "row 1 .* NaN throughout"),
    (np.full((1, WIDTH), np.inf, np.float32), SPANS[:1], "infinite"),
]


@pytest.mark.parametrize(("x", "y", "message"), BAD, ids=[b[2] for b in BAD])
def test_bad_training_data_is_refused_by_name(x: Any, y: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        start(x, y)


def test_bad_parameters_and_several_labels_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match=r"parameters of token-head.*known are"):
        start(parameters={"rates": 1})
    with pytest.raises(InvalidInputError, match="is_multilabel"):
        start(is_multilabel=True)


def test_a_row_that_is_not_whole_teaches_and_shows_nothing(model: TokenModel) -> None:
    assert [len(one.labels) for one in model.predict_regions(np.full((1, WIDTH), np.nan, np.float32))] == [0]
    holes = nan_rows(7)
    assert len(read_rows(holes).starts) == 4
    training = start(holes, SPANS[:3], epoch=1)
    assert all(np.isfinite(finish(training)))
    assert len(training.model().predict_regions(holes)[1].labels) == 0
    with pytest.raises(InvalidInputError, match="minilm-tokens"):
        model.predict_regions(np.ones((1, 3), np.float32))
    assert model.predict_regions(X[:0]) == []


def test_a_row_gives_its_words_back_exactly() -> None:
    rng = np.random.default_rng(0)
    spans = np.array([(0, 3), (2**24 - 9, 2**24 - 1)])
    looks = rng.integers(0, 2**HASH_BITS, (2, 5))
    vectors = rng.standard_normal((2, VECTOR)).astype(np.float32)
    words = read_rows(np.stack([write_row(spans, looks, vectors), np.zeros(WIDTH, np.float32)]))
    assert np.array_equal(words.spans, spans)
    assert np.array_equal(words.hashes, looks)
    np.testing.assert_allclose(words.vectors, vectors, atol=np.abs(vectors).max() / 250)
    assert words.starts.tolist() == [0, 2, 2]
    centre = pooled(write_row(spans, looks, vectors)[None])[0] @ vectors.mean(axis=0)
    assert centre == pytest.approx(np.linalg.norm(vectors.mean(axis=0)), rel=1e-3)


WORDS_OF: list[tuple[str, list[str]]] = [
    ("", []),
    (" \n ", []),
    ("don't @user #tag, 3.14", ["don", "'", "t", "@", "user", "#", "tag", ",", "3", ".", "14"]),
    ("see http://t.co/a?b=1 now", ["see", "http://t.co/a?b=1", "now"]),
    ("e\u0301te\u0301 Zürich", ["e\u0301te\u0301", "Zürich"]),
    ("我爱北京abc", ["我", "爱", "北", "京", "abc"]),
    ("ok🙂🙂 हिन्दी", ["ok", "🙂", "🙂", "हिन्दी"]),
]


@pytest.mark.parametrize(("text", "words"), WORDS_OF)
def test_a_text_is_cut_into_words_that_lie_where_they_say(text: str, words: list[str]) -> None:
    assert [text[a:b] for a, b in find_words(text, 64)] == words


def test_the_encoder_sees_the_first_words_of_a_long_text_and_each_character_of_a_chinese_one() -> None:
    set_threads(1)
    encoder = find_encoder("minilm-tokens")
    assert isinstance(encoder, MiniLmTokens)
    long, first, chinese, empty, address = encoder.encode(
        ["word " * 10_000, "word " * MAX_WORDS, "我爱北京", "", "https://" + "x-y/" * 2 * MAX_PIECES + " end"]
    )
    assert np.array_equal(long, first)
    assert read_rows(long[None]).spans[-1].tolist() == [5 * 63, 5 * 63 + 4]
    words = read_rows(np.stack([chinese, empty, address]))
    assert words.starts.tolist() == [0, 4, 4, 6]
    assert words.spans[:4].tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert np.abs(words.vectors[:5]).max(axis=1).min() > 0
    assert not words.vectors[5].any()  # beyond the pieces
    assert encoder.record()["max_words"] == MAX_WORDS


def test_a_words_vector_depends_on_its_sentence() -> None:
    rows_of = find_encoder("minilm-tokens").encode(["the river bank", "a savings bank"])
    river, money = (read_rows(row[None]).vectors[2] for row in rows_of)
    assert river @ money / np.linalg.norm(river) / np.linalg.norm(money) < 0.99


def test_texts_of_one_meaning_lie_side_by_side_in_coordinates() -> None:
    encoder = find_encoder("minilm-tokens")
    texts = ["The film was wonderful", "I loved this movie", "Interest rates rose in March"]
    a, b, c = encoder.coordinates(encoder.encode(texts))
    assert a @ b > a @ c + 0.2
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    plain = find_encoder("hash-ngram")
    assert plain.coordinates(plain.encode(texts)).shape == (3, plain.dim)
