"""Exact and near duplicates among images, in time that grows with N log N.

Exact: equal pixels, found by a 64-bit hash of the bytes and then compared. Near: the same picture compressed, scaled
or lit a little differently. Candidates come from a perceptual hash: the signs of 64 low-frequency coefficients of a
cosine transform of the grey image, each against its median over the data, so that every bit is fair on any data.
Hashes are sorted under several permutations of their bits; images that are close in one of the orders are compared
bit by bit, and candidates pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VERSION = 1  # part of the key under which duplicates are kept: raise it when others are found
_CHUNK = 1024  # images at a time, to stay within memory on memory-mapped arrays
_PERMUTATIONS, _NEIGHBOURS = 12, 4
_BITS_APART = 8  # of 64: independent images differ in 32 +- 4
_CORRELATION = 0.99
_DIFFERENCE = 12 / 255  # mean absolute difference: a little brighter is the same picture, a like gradient is not
_FLAT = 2 / 255  # images whose standard deviation is below have nothing to correlate


@dataclass(frozen=True)
class Duplicates:
    """groups: int64 (N,), equal for duplicates, exact or near. exact: int64 (N,), equal for equal pixels. Both count
    from 0 in the order of first appearance. constant: bool (N,), images of one colour."""

    exact: np.ndarray
    groups: np.ndarray
    constant: np.ndarray

    @staticmethod
    def surplus(groups: np.ndarray) -> int:
        """Images that could go without losing a group."""
        return len(groups) - len(np.unique(groups))


def find(pixels: np.ndarray) -> Duplicates:
    """Duplicates among uint8 or float32 images (N, H, W, C)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    exact, first = _exact(pixels)
    constant = np.concatenate(
        [np.ptp(part.reshape(len(part), -1), axis=1) == 0 for part in _chunks(pixels)] or [np.zeros(0, bool)]
    )
    left, right = _near(pixels, first)
    count = len(first)
    merged = connected_components(coo_matrix((np.ones(len(left), bool), (left, right)), (count, count)), False)[1]
    return Duplicates(exact, _by_appearance(merged.astype(np.int64)[exact]), constant)


def _chunks(pixels: np.ndarray) -> list[np.ndarray]:
    return [pixels[start : start + _CHUNK] for start in range(0, len(pixels), _CHUNK)]


def _by_appearance(groups: np.ndarray) -> np.ndarray:
    """Renumber groups from 0 in the order in which they first appear."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _exact(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(group (N,), row of the first member of each group)."""
    hashes = np.concatenate([_byte_hash(part) for part in _chunks(pixels)] or [np.zeros(0, np.uint64)])
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    rows = np.flatnonzero(first[group] != np.arange(len(pixels)))
    for start in range(0, len(rows), _CHUNK):  # two images with one hash are equal only if their bytes are
        some = rows[start : start + _CHUNK]
        unlike = some[(pixels[some] != pixels[first[group[some]]]).any(axis=(1, 2, 3))]
        group[unlike] = len(pixels) + unlike
    group = _by_appearance(group)
    return group, np.unique(group, return_index=True)[1]


def _byte_hash(images: np.ndarray) -> np.ndarray:
    """uint64 (N,): the bytes of each image, eight at a time, multiplied by fixed random numbers and added up."""
    content = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint8)
    words = np.pad(content, ((0, 0), (0, -content.shape[1] % 8))).view(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**64, words.shape[1], np.uint64) | np.uint64(1)
    mixed = (words ^ (words >> np.uint64(32))) * factors
    return (mixed ^ (mixed >> np.uint64(29))).sum(axis=1, dtype=np.uint64)


def _near(pixels: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (left, right), places in `rows`, of distinct images that show the same picture."""
    if len(rows) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    bits = _perceptual_bits(pixels, rows)
    words = np.packbits(bits, axis=1)
    found = []
    random = np.random.default_rng(0)
    for _ in range(_PERMUTATIONS):
        keys = np.ascontiguousarray(np.packbits(bits[:, random.permutation(64)], axis=1)).view(">u8").ravel()
        order = np.argsort(keys, kind="stable")
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            pair = np.stack([order[:-step], order[step:]])
            apart = _ONES[words[pair[0]] ^ words[pair[1]]].sum(axis=1)
            found.append(np.sort(pair[:, apart <= _BITS_APART], axis=0))
    pairs = np.unique(np.concatenate(found, axis=1), axis=1)
    some = (rows[pairs[:, start : start + _CHUNK]] for start in range(0, pairs.shape[1], _CHUNK))
    same = np.concatenate([np.zeros(0, bool), *(_same_picture(pixels[left], pixels[right]) for left, right in some)])
    return pairs[0, same], pairs[1, same]


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)


def _cosines(size: int) -> np.ndarray:
    """(9, size): the nine lowest frequencies of a cosine transform (DCT-II) of a line of `size` pixels."""
    return np.cos(np.pi * np.outer(np.arange(9), np.arange(size) + 0.5) / size).astype(np.float32)


def _perceptual_bits(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """bool (M, 64): which of the 64 lowest frequencies (the mean left out) lie above their median over the images."""
    down, across = _cosines(pixels.shape[1]), _cosines(pixels.shape[2])
    spectrum = np.empty((len(rows), 81), np.float32)
    for start in range(0, len(rows), _CHUNK):
        planes = pixels[rows[start : start + _CHUNK]].transpose(3, 0, 1, 2)
        grey = sum(plane.astype(np.float32) for plane in planes) / len(planes)  # as a mean, five times as fast
        spectrum[start : start + _CHUNK] = (down @ grey @ across.T).reshape(-1, 81)
    low = np.argsort(np.add.outer(np.arange(9), np.arange(9)).ravel(), kind="stable")[1:65]
    return spectrum[:, low] > np.median(spectrum[:, low], axis=0)


def _same_picture(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool (P,): whether the images (P, H, W, C) of each pair correlate and differ little."""
    top = 255.0 if left.dtype == np.uint8 else 1.0
    one, other = (images.reshape(len(images), -1).astype(np.float32) / top for images in (left, right))
    difference = np.abs(one - other).mean(axis=1)
    one, other = (part - part.mean(axis=1, keepdims=True) for part in (one, other))
    spread = np.sqrt((one**2).mean(axis=1) * (other**2).mean(axis=1))
    correlation = (one * other).mean(axis=1) / np.maximum(spread, _FLAT**2)
    return (correlation >= _CORRELATION) & (difference <= _DIFFERENCE) & (spread > _FLAT**2)
