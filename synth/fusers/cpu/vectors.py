"""Small kernels in vectors of eight floats, for loops compiled by numba: what a compiler does not find by itself.

A product of two small matrices is fast where a tile of the result stays in registers while its sums are made. Compiled
loops keep no such tile, so these few are written in the compiler's own vector language, which any processor's
instructions can carry out. All arrays are flat; rows of activations are ``LANES`` long, one lane a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 64
"""Floats in a row of activations: the tokens of a window."""

TILE = 16
"""Lanes of a tile: two vectors."""

_WIDTH = 8
_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, _WIDTH)
_BITS = ir.VectorType(ir.IntType(32), _WIDTH)

_ARRAY = types.Array(types.float32, 1, "C")
_I = types.int64


class _Code:
    """One kernel being written: its builder, and short names for what it is made of."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.b = builder
        self.args: list[Any] = [
            context.make_array(kind)(context, builder, arg).data if isinstance(kind, types.Array) else arg
            for kind, arg in zip(signature.args, args, strict=True)
        ]

    def at(self, base: Any, row: Any, step: int = 0) -> Any:
        """base + row × LANES + step."""
        return self.b.add(self.b.add(base, self.b.mul(row, number(LANES))), number(step))

    def scalar(self, array: Any, index: Any) -> Any:
        """One float of an array in all lanes."""
        return self.spread(self.b.load(self.b.gep(array, [index])))

    def spread(self, value: Any) -> Any:
        """A float in all lanes."""
        first = self.b.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(_BITS, [0] * _WIDTH)
        return self.b.shuffle_vector(first, ir.Constant(_VECTOR, ir.Undefined), zeros)

    def _place(self, array: Any, index: Any) -> Any:
        return self.b.bitcast(self.b.gep(array, [index]), _VECTOR.as_pointer())

    def load(self, array: Any, index: Any) -> Any:
        """Eight floats."""
        return self.b.load(self._place(array, index), align=4)

    def store(self, value: Any, array: Any, index: Any) -> None:
        """Eight floats."""
        self.b.store(value, self._place(array, index), align=4)

    def held(self, value: Any) -> Any:
        """A variable; it lives in a register."""
        place = cgutils.alloca_once(self.b, _VECTOR)
        self.b.store(value, place)
        return place

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """x y + z."""
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        function = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.fmuladd.v{_WIDTH}f32")
        return self.b.call(function, [x, y, z])

    def one(self, name: str, x: Any) -> Any:
        """A function of the compiler's own of one vector: sqrt, fabs."""
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, f"llvm.{name}.v{_WIDTH}f32"), [x])

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of both, y where they are equal."""
        return self.b.select(self.b.fcmp_ordered(">", x, y), x, y)

    def polynomial(self, x: Any, *coefficients: float) -> Any:
        """Σ cᵢ xⁱ, by Horner's rule."""
        value = floats(coefficients[-1])
        for c in coefficients[-2::-1]:
            value = self.fma(value, x, floats(c))
        return value

    def exp2(self, x: Any) -> Any:
        """2^x for x ≤ 0, within 2e-7; below 2^−126 it is that.

        2^x = 2^n 2^f with n the nearest whole number: n, added to 1.5 · 2^23, stands in that float's low bits, from
        where it is moved to an exponent's; 2^f on [−½, ½] is a polynomial.
        """
        magic = floats(12582912.0)
        x = self.larger(x, floats(-126.0))
        y = self.b.fadd(x, magic)
        f = self.b.fsub(x, self.b.fsub(y, magic))
        p = self.polynomial(f, 1.0, 0.693147182, 0.240226462, 0.0555032981, 0.00961834225, 0.00133273531, 0.000154697)
        n = self.b.shl(self.b.bitcast(y, _BITS), ir.Constant(_BITS, [23] * _WIDTH))
        return self.b.fmul(p, self.b.bitcast(self.b.add(n, ir.Constant(_BITS, [127 << 23] * _WIDTH)), _VECTOR))


def number(n: int) -> Any:
    """A whole number in the code."""
    return ir.Constant(_INT, n)


def floats(x: float) -> Any:
    """The same float in all lanes."""
    return ir.Constant(_VECTOR, [x] * _WIDTH)


def _kernel(write: Callable[[_Code], None], *kinds: Any) -> tuple[Any, Callable[..., Any]]:
    """Signature and generator of an intrinsic that returns nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        write(_Code(context, builder, signature, args))
        return context.get_dummy_value()

    return types.void(*kinds), generate


def _product(rows: int, spread: bool) -> Callable[[_Code], None]:
    """Write: out[r, n] = start[r, n] + Σ_d w[r, d] x[d, n] for a tile of ``rows`` × TILE, its sums in registers."""

    def write(code: _Code) -> None:
        w, w0, across, down, x, x0, start, start0, out, out0, depth = code.args
        b, halves = code.b, range(0, TILE, _WIDTH)

        def first(r: int, k: int) -> Any:
            if spread:
                return code.scalar(start, b.add(start0, number(r)))
            return code.load(start, code.at(start0, number(r), k))

        sums = [[code.held(first(r, k)) for k in halves] for r in range(rows)]
        with cgutils.for_range(b, depth) as loop:
            vectors = [code.load(x, code.at(x0, loop.index, k)) for k in halves]
            column = b.add(w0, b.mul(loop.index, down))
            for r, row in enumerate(sums):
                weight = code.scalar(w, b.add(column, b.mul(across, number(r))))
                for held, vector in zip(row, vectors, strict=True):
                    b.store(code.fma(weight, vector, b.load(held)), held)
        for r, row in enumerate(sums):
            for k, held in zip(halves, row, strict=True):
                code.store(b.load(held), out, code.at(out0, number(r), k))

    return write


_PRODUCT = (_ARRAY, _I, _I, _I, _ARRAY, _I, _ARRAY, _I, _ARRAY, _I, _I)


@intrinsic
def product5(context, w, w0, across, down, x, x0, start, start0, out, out0, depth):
    """Five rows of a product over a tile, added to what ``start`` has there.

    Element (r, d) of w is at w0 + r across + d down; rows of x, start and out are LANES long.
    """
    return _kernel(_product(5, False), *_PRODUCT)


@intrinsic
def product5_spread(context, w, w0, across, down, x, x0, start, start0, out, out0, depth):
    """As ``product5``; start has one number a row."""
    return _kernel(_product(5, True), *_PRODUCT)


@intrinsic
def product4(context, w, w0, across, down, x, x0, start, start0, out, out0, depth):
    """As ``product5``, four rows."""
    return _kernel(_product(4, False), *_PRODUCT)


def _exponentials(code: _Code) -> None:
    s, n, rows, total = code.args
    for k in range(0, TILE, _WIDTH):
        most, added = code.held(floats(-3e38)), code.held(floats(0.0))
        with cgutils.for_range(code.b, rows) as loop:
            score = code.load(s, code.at(n, loop.index, k))
            code.b.store(code.larger(score, code.b.load(most)), most)
        with cgutils.for_range(code.b, rows) as loop:
            place = code.at(n, loop.index, k)
            power = code.exp2(code.b.fsub(code.load(s, place), code.b.load(most)))
            code.store(power, s, place)
            code.b.store(code.b.fadd(code.b.load(added), power), added)
        code.store(code.b.load(added), total, code.b.add(n, number(k)))


@intrinsic
def exponentials(context, s, n, rows, total):
    """s[m, lane] becomes 2^(s − the largest of its lane), and total[lane] their sum, for a tile from lane n."""
    return _kernel(_exponentials, _ARRAY, _I, _I, _ARRAY)


def _normal(code: _Code) -> None:
    x, out, rows = code.args
    b = code.b
    share = code.spread(b.fdiv(ir.Constant(_FLOAT, 1.0), b.sitofp(rows, _FLOAT)))
    for k in range(0, LANES, _WIDTH):
        added, squares = code.held(floats(0.0)), code.held(floats(0.0))
        with cgutils.for_range(b, rows) as loop:
            b.store(b.fadd(b.load(added), code.load(x, code.at(number(k), loop.index))), added)
        mean = b.fmul(b.load(added), share)
        with cgutils.for_range(b, rows) as loop:
            away = b.fsub(code.load(x, code.at(number(k), loop.index)), mean)
            b.store(code.fma(away, away, b.load(squares)), squares)
        deviation = code.one("sqrt", code.fma(b.load(squares), share, floats(1e-5)))
        scale = b.fdiv(floats(1.0), deviation)
        with cgutils.for_range(b, rows) as loop:
            place = code.at(number(k), loop.index)
            code.store(b.fmul(b.fsub(code.load(x, place), mean), scale), out, place)


@intrinsic
def normal(context, x, out, rows):
    """out = (x − mean)/√(variance + 1e-5) over the rows, lane by lane: layer norm, but for its weight and bias."""
    return _kernel(_normal, _ARRAY, _ARRAY, _I)


def _gelu(code: _Code) -> None:
    x, rows = code.args
    b = code.b
    with cgutils.for_range(b, rows) as loop:
        for k in range(0, LANES, _WIDTH):
            place = code.at(number(k), loop.index)
            value = code.load(x, place)
            size = code.one("fabs", value)
            t = b.fdiv(floats(1.0), code.fma(size, floats(0.3275911 * 0.5**0.5), floats(1.0)))
            tail = code.polynomial(t, 0.0, 0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
            fall = code.exp2(b.fmul(b.fmul(size, size), floats(-0.72134752)))  # log2(e) / 2
            half = b.fmul(b.fmul(size, floats(0.5)), b.fmul(tail, fall))
            code.store(b.fsub(code.larger(value, floats(0.0)), half), x, place)


@intrinsic
def gelu(context, x, rows):
    """x Φ(x) in place, within 5e-7: max(x, 0) − |x|/2 erfc(|x|/√2), erfc by Abramowitz and Stegun 7.1.26."""
    return _kernel(_gelu, _ARRAY, _I)
