"""Specs as JSON: round trips, and strict reading."""

import json
import math
import re
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.contracts import Size
from unmask.encoders import ViT
from unmask.errors import SettingsError
from unmask.masking import (
    AnyMasking,
    BlockMasking,
    GridMasking,
    InverseBlockMasking,
    NoiseMasking,
    PartitionMasking,
    RandomMasking,
    SquareMasking,
)
from unmask.objectives import MAE
from unmask.spec import Kind, from_json, kinds, to_json, within
from unmask.targets import Pixels
from unmask.training.optimizers import AdamW


@dataclass(frozen=True, kw_only=True)
class Apple:
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Pear:
    ripe: bool = False
    name: str = "pear"


Fruit = Annotated[Apple, Kind("apple")] | Annotated[Pear, Kind("pear")]


@dataclass(frozen=True, kw_only=True)
class Lunch:
    fruit: Fruit | None


@dataclass(frozen=True, kw_only=True)
class Basket:
    fruit: Fruit
    count: int
    size: Size = Size(1, 2)
    colour: Literal["red", "green"] = "red"


@dataclass(frozen=True, kw_only=True)
class Crate:
    basket: Basket


BASKET = Basket(fruit=Pear(ripe=True), count=3, size=Size(4, 5))


def through_text(spec: Any) -> Any:
    return from_json(type(spec), json.loads(json.dumps(to_json(spec))))


def test_kinds_of_a_union() -> None:
    assert kinds(AnyMasking) == {
        "random": RandomMasking,
        "block": BlockMasking,
        "grid": GridMasking,
        "partition": PartitionMasking,
        "squares": SquareMasking,
        "inverse-block": InverseBlockMasking,
        "noise": NoiseMasking,
    }
    assert kinds(Annotated[Apple, Kind("apple")]) == {"apple": Apple}
    assert kinds(int | str) == {}
    assert kinds(Annotated[Apple, "a remark"]) == {}
    assert kinds(Apple) == {}


def test_layout_of_the_json() -> None:
    assert to_json(BASKET) == {
        "fruit": {"kind": "pear", "ripe": True, "name": "pear"},
        "count": 3,
        "size": [4, 5],
        "colour": "red",
    }


def test_round_trip() -> None:
    assert through_text(BASKET) == BASKET
    assert through_text(replace(BASKET, fruit=Apple())) == replace(BASKET, fruit=Apple())


@given(ratio=st.floats(0.01, 0.99), weight_decay=st.floats(0, 1))
def test_reals_return_to_the_bit(ratio: float, weight_decay: float) -> None:
    objective = MAE(masking=BlockMasking(ratio=ratio), target=Pixels())
    assert through_text(objective) == objective
    optimizer = AdamW(weight_decay=weight_decay)
    assert through_text(optimizer) == optimizer


def test_a_missing_field_with_a_default_takes_it() -> None:
    assert from_json(Basket, {"fruit": {"kind": "apple"}, "count": 1}).size == Size(1, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuont": 1}, "unknown field 'cuont' in Basket; did you mean 'count'"),
        (
            {"fruit": {"kind": "peer"}},
            "unknown kind 'peer'; did you mean 'pear'. Known: apple, pear",
        ),
        (
            {"fruit": {"ripe": True}},
            r"expected an object with a kind \(apple, pear\), got {'ripe': True}",
        ),
        ({"fruit": "pear"}, r"expected an object with a kind .*got 'pear'"),
        ({"fruit": {"kind": "apple", "ripe": True}}, r"unknown field 'ripe' in Basket.fruit"),
        ({"fruit": {"kind": "pear", "ripe": 1}}, r"Basket.fruit.ripe: expected bool, got 1"),
        ({"count": "3"}, "Basket.count: expected int, got '3'"),
        ({"count": 3.0}, "Basket.count: expected int, got 3.0"),
        ({"count": True}, "Basket.count: expected int, got True"),
        ({"count": None}, "Basket.count: expected int, got None"),
        ({"size": [1]}, r"Basket.size: expected a list of 2 numbers, got \[1\]"),
        ({"size": [1, "2"]}, "Basket.size: expected int, got '2'"),
        ({"colour": "blue"}, "Basket.colour.*blue"),
    ],
    ids=str,
)
def test_strict_reading(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_json(Basket, {**to_json(BASKET), **change})


def test_a_missing_field_without_a_default_is_named() -> None:
    with pytest.raises(SettingsError, match="field 'count' is missing in Basket"):
        from_json(Basket, {"fruit": {"kind": "apple"}})


def test_a_missing_field_is_named_once() -> None:
    with pytest.raises(SettingsError, match=r"field 'count' is missing in Crate\.basket$"):
        from_json(Crate, {"basket": {"fruit": {"kind": "apple"}}})


@pytest.mark.parametrize("data", [[], 7, None])
def test_a_file_that_holds_no_object_is_refused(data: Any) -> None:
    with pytest.raises(SettingsError, match="Basket"):
        from_json(Basket, data)


def test_a_whole_number_may_stand_for_a_real() -> None:
    apple = from_json(Apple, {"weight": 2})
    assert apple.weight == 2.0
    assert isinstance(apple.weight, float)


@pytest.mark.parametrize("data", [[], "text", 3, None])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(SettingsError, match=r"Crate\.basket"):
        from_json(Crate, {"basket": data})


def test_checks_of_the_spec_itself_are_heard() -> None:
    with pytest.raises(
        SettingsError, match=r"ratio must lie between 0 and 1, got 1\.5; MAE uses 0\.75"
    ):
        from_json(RandomMasking, {"ratio": 1.5})
    data = to_json(MAE())
    data["masking"]["ratio"] = 0.0
    with pytest.raises(SettingsError, match=r"ratio must lie between 0 and 1, got 0"):
        from_json(MAE, data)


def test_an_object_without_a_public_name_cannot_be_written() -> None:
    @dataclass(frozen=True)
    class Plum:
        pass

    with pytest.raises(SettingsError, match=r"Plum has no public name.*known here: apple, pear"):
        to_json(Basket(fruit=Plum(), count=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", [ViT, MAE, RandomMasking, AdamW])
def test_specs_are_frozen_and_take_keywords_only(spec: type) -> None:
    assert spec.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in fields(spec))


@pytest.mark.parametrize(
    ("fruit", "said"), [(Pear(ripe=True), "pear"), (Apple(weight=2.0), "apple"), (None, None)]
)
def test_one_of_several_kinds_or_nothing(fruit: Fruit | None, said: str | None) -> None:
    data = json.loads(json.dumps(to_json(Lunch(fruit=fruit))))
    assert (data["fruit"] or {}).get("kind") == said
    assert from_json(Lunch, data) == Lunch(fruit=fruit)
    with pytest.raises(SettingsError, match="unknown kind 'peer'; did you mean 'pear'"):
        from_json(Lunch, {"fruit": {"kind": "peer"}})


@dataclass(frozen=True, kw_only=True)
class Bowl:
    share: float | None = 0.5


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "bounds"),
    [
        ("(0, 1)", [0.1, 0.9], [0.0, 1.0, -1.0], "lie between 0 and 1"),
        ("[0, 1]", [0.0, 1.0], [-0.1, 1.1], "lie between 0 and 1"),
        ("[0, 1)", [0.0, 0.9], [1.0, -0.1], "be at least 0 and below 1"),
        ("(0, 1]", [0.1, 1.0], [0.0, 1.1], "be above 0 and at most 1"),
        ("(0, inf)", [0.1, 1e9], [0.0, -1.0], "be above 0"),
        ("[0, inf)", [0.0, 1e9], [-0.1], "not be negative"),
        ("[2, inf)", [2, 3.5], [1.9], "be at least 2"),
    ],
)
def test_fields_lie_in_their_interval(
    interval: str, inside: list[float], outside: list[float], bounds: str
) -> None:
    for share in (*inside, None):
        within(Bowl(share=share), interval, "share")
    for share in (*outside, math.inf, math.nan):
        expected = bounds if math.isfinite(share) else "be a finite number"
        message = re.escape(
            f"share must {expected}, got {str(share).removesuffix('.0')}; bowls use a half"
        )
        with pytest.raises(SettingsError, match=message):
            within(Bowl(share=share), interval, "share", usual="bowls use a half")
