"""Seeded stratified split of samples."""

from collections.abc import Hashable, Sequence
from random import Random


def stratified_split(keys: Sequence[Hashable], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Stratified split of indices into one part per fraction and the remaining indices.

    Each part has its fraction of the samples of every key to within one sample. Over all keys these add up to the
    part's fraction, also if keys have too few samples for one in each part. The last sample of a key always remains.

    Args:
        keys: Key of each sample to stratify by.
        fractions: Fraction of the samples for each part.
        seed: Seed of the shuffle. The split depends only on it and on the order of the samples.

    Returns:
        The remaining indices, then those of the part of each fraction, sorted.

    Raises:
        ValueError: If fractions are negative or sum to 1 or more, or a part is empty.

    >>> rest, part = stratified_split("aaaabbbb", [0.25], seed=0)
    >>> ["aaaabbbb"[i] for i in part]
    ['a', 'b']
    """
    if any(fraction < 0 for fraction in fractions) or sum(fractions) >= 1:
        raise ValueError(f"Expected fractions of at least 0 that sum to less than 1, but got {[*fractions]}")
    by_key: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        by_key.setdefault(key, []).append(index)
    random = Random(seed)
    parts: list[list[int]] = [[] for _ in range(len(fractions) + 1)]
    seen = 0
    for indices in by_key.values():
        random.shuffle(indices)
        seen += len(indices)
        for part, fraction in zip(parts[1:], fractions, strict=True):
            count = min(max(round(seen * fraction) - len(part), 0), len(indices) - 1)
            part += indices[:count]
            indices = indices[count:]
        parts[0] += indices
    for part, fraction in zip(parts[1:], fractions, strict=True):
        if fraction > 0 and not part:
            raise ValueError(
                f"Expected a fraction of {fraction} to hold out a sample at least, but of {len(keys)} it holds out none"
            )
    return [sorted(part) for part in parts]
