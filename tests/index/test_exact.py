"""The fused kernel and its torch stand-in against the formula written in numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prerank.index import ItemMatrix, exact, top_k
from prerank.index.extension import maxsim
from prerank.index.rows import unpack

groups_of = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3, 6, 8, 9, 15, 16, 17, 33]),
        st.integers(1, 7),
        st.sampled_from([1, 3, 8, 16, 17, 31, 64]),
        st.integers(0, 2),
    ),
    min_size=1, max_size=3,
)  # fmt: skip


def formula(flat, bias, groups, user, user_bias, rows):
    """sum over user heads of max over item heads of inner products, in float64; NaN where the row is -1."""
    out = np.full((len(rows), bias.shape[1]), np.nan)
    for c, row in enumerate(rows):
        if row < 0:
            continue
        out[c] = user_bias + bias[row]
        u = i = 0
        for hu, hi, k, objective in groups:
            heads = user[u : u + hu * k].reshape(hu, k).astype(np.float64)
            stored = flat[row, i : i + hi * k].reshape(hi, k).astype(np.float64)
            out[c, objective] += np.einsum("uk,ik->ui", heads, stored).max(1).sum()
            u, i = u + hu * k, i + hi * k
    return out


@settings(max_examples=60, deadline=None)
@given(groups=groups_of, dtype=st.sampled_from(["fp32", "bf16", "int8"]), n=st.integers(1, 90), seed=st.integers(0, 10**6))
def test_scores_are_the_formula(groups, dtype, n, seed):
    rng = np.random.default_rng(seed)
    width, user_width = sum(h * k for _, h, k, _ in groups), sum(h * k for h, _, k, _ in groups)
    flat = rng.normal(size=(n, width)).astype(np.float32)
    bias = rng.normal(size=(n, 3)).astype(np.float32)
    user, user_bias = rng.normal(size=user_width).astype(np.float32), rng.normal(size=3).astype(np.float32)
    rows = rng.integers(-1, n, rng.integers(0, 150))
    items = ItemMatrix.of(flat, bias, groups, dtype)
    stored = unpack(items.rows, items.scales, width, dtype)
    expected = formula(stored, bias, groups, user, user_bias, rows)
    for score in (items.score, items.score_torch):
        np.testing.assert_allclose(score(user, user_bias, rows), expected, rtol=1e-5, atol=1e-5 * (1 + user_width))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("groups", [[(6, 2, 64, 0)], [(1, 1, 64, 0)], [(17, 5, 24, 0), (1, 1, 7, 1)]])
def test_every_instruction_set_gives_the_same(dtype, groups):
    if maxsim is None:
        pytest.skip("no extension")
    rng = np.random.default_rng(0)
    width, user_width = sum(h * k for _, h, k, _ in groups), sum(h * k for h, _, k, _ in groups)
    items = ItemMatrix.of(rng.normal(size=(50, width)), rng.normal(size=(50, 2)), groups, dtype)
    user, user_bias, rows = rng.normal(size=user_width), rng.normal(size=2), rng.integers(-1, 50, 70)
    expected = items.score_torch(user.astype(np.float32), user_bias.astype(np.float32), rows)
    for level in maxsim.levels():
        maxsim.use(level)
        try:
            np.testing.assert_allclose(items.score(user, user_bias, rows), expected, rtol=1e-5, atol=1e-4)
        finally:
            maxsim.use(maxsim.levels()[-1])


def test_scores_without_the_extension(monkeypatch):
    items = ItemMatrix.of(np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[0.5], [0.0]]), [(1, 1, 2, 0)])
    monkeypatch.setattr(exact, "maxsim", None)
    assert items.score(np.array([3.0, 5.0]), np.array([1.0]), np.array([1, 0])).tolist() == [[11.0], [4.5]]
    assert top_k(np.array([1.0, 3.0, np.nan, 2.0, 3.0]), 3).tolist() == [1, 4, 3]


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.one_of(st.floats(-5, 5, width=32), st.sampled_from([float("nan"), 1.0, 2.0])), max_size=300), k=st.integers(1, 320)
)
def test_top_k_is_a_stable_sort_without_nan(scores, k):
    array = np.array(scores, np.float32)
    expected = sorted((i for i in range(len(array)) if not np.isnan(array[i])), key=lambda i: (-array[i], i))[:k]
    assert top_k(array, min(k, len(array))).tolist() == expected


def test_bf16_is_the_nearest_and_int8_within_half_a_step():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(40, 37)).astype(np.float32)
    flat[3] = 0
    for dtype, bound in (("bf16", np.abs(flat) * 2**-8), ("int8", np.abs(flat).max(1, keepdims=True) / 254 * 1.0001)):
        items = ItemMatrix.of(flat, np.zeros((40, 1)), [(1, 1, 37, 0)], dtype)
        assert (np.abs(unpack(items.rows, items.scales, 37, dtype) - flat) <= bound).all()
        assert items.rows.ctypes.data % 64 == 0
        assert items.rows.strides[0] % 64 == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros((4, 3), np.float32)}, "item rows must be float32 [4, 16]"),
        ({"rows": np.zeros((4, 16), np.float64)}, "got float64"),
        ({"bias": np.zeros((3, 1), np.float32)}, "item bias must be float32 [4, T]"),
        ({"scales": np.zeros(4, np.float32)}, "item scales must be"),
        ({"groups": [(1, 1, 3, 1)]}, "a head group is for objective 1, there are 1"),
    ],
)
def test_wrong_arrays_are_refused(change, message):
    given_ = {"rows": np.zeros((4, 16), np.float32), "bias": np.zeros((4, 1), np.float32), "groups": [(1, 1, 3, 0)], **change}
    with pytest.raises(ValueError, match=message.replace("[", r"\[").replace("]", r"\]")):
        ItemMatrix(given_["rows"], given_["bias"], given_["groups"], scales=given_.get("scales"))


@pytest.mark.parametrize(
    ("user", "bias", "rows"),
    [(np.zeros(2), np.zeros(1), [0]), (np.zeros(3), np.zeros(2), [0]), (np.zeros(3), np.zeros(1), [4]), (np.zeros(3), np.zeros(1), [-2])],
)
def test_wrong_requests_are_refused_before_memory_is_touched(user, bias, rows):
    items = ItemMatrix.of(np.zeros((4, 3)), np.zeros((4, 1)), [(1, 1, 3, 0)])
    with pytest.raises(ValueError, match=r"user vector|user bias|rows must be"):
        items.score(user, bias, np.array(rows))
