"""Splitting samples into parts, seeded and stratified."""

from collections.abc import Hashable, Sequence
from random import Random


def stratified_split(keys: Sequence[Hashable], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Splits indices into a rest and one part a fraction, each holding its share of every key to within one sample.

    The shares of all keys add up to the part's own share, also where keys have too few samples for one each. The last
    sample of a key stays in the rest.

    Args:
        keys: What to stratify by, one a sample.
        fractions: Share of each part after the first.
        seed: Seed of the shuffle. The split depends on it and on the order of the samples alone.

    Returns:
        The rest, then a part for each fraction, as sorted indices.

    Raises:
        ValueError: If fractions are negative, leave nothing, or a part comes out empty.

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
                f"Expected a fraction of {fraction} to set samples aside, but of {len(keys)} it leaves none"
            )
    return [sorted(part) for part in parts]
