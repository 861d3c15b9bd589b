r"""Rewrite typographic characters (`π`, `½`, `x²`, `√`) in the LaTeX that means the same.

Some notations that have no grammar go the same way: `{}_5C_2`, `log10(3)`, `4 p.m.`, `3{:}5`.
"""

import re
import unicodedata

_PAIRS = {
    "×✕⨯": r"\times ", "÷": r"\div ", "·⋅∙•∗": r"\cdot ", "±": r"\pm ", "∓": r"\mp ",
    "≤⩽≦": r"\le ", "≥⩾≧": r"\ge ", "≠": r"\ne ", "≈≅": r"\approx ", "≡": r"\equiv ",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∖": r"\setminus ", "→": r"\to ", "⟨〈": r"\langle ", "⟩〉": r"\rangle ", "⌊": r"\lfloor ",
    "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "‖": r"\|", "…⋯": r"\ldots ",
    "−‐‑‒–—―﹣": "-", "°º˚": r"^\circ ", "℃": r"^\circ\text{C}", "℉": r"^\circ\text{F}",
    "√": r"\usqrt ", "∛": r"\ucbrt ", "∜": r"\ufourthrt ", "∑": r"\sum ", "∏": r"\prod ",
    "∠": r"\angle ", "△": r"\triangle ", "′": "'", "’‘": "'", "“”": '"', "⁄∕": "/", "₤": "£",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}", "\u2009\u202f": r"\,", "\u00a0\u2002\u2003\u2005\u2007\u3000": " ",
    "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff": "",
    "π": r"\pi ", "θϑ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
    "δ": r"\delta ", "εϵ": r"\epsilon ", "λ": r"\lambda ", "μµ": r"\mu ", "φϕ": r"\phi ",
    "ψ": r"\psi ", "ω": r"\omega ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
    "Δ∆": r"\Delta ", "Σ": r"\Sigma ", "Ω": r"\Omega ", "Φ": r"\Phi ", "Γ": r"\Gamma ",
    "∧": r"\land ", "∨": r"\lor ", "¬": r"\neg ", "⊥": r"\perp ", "∥": r"\parallel ",
}  # fmt: skip
_TABLE = {ord(char): latex for chars, latex in _PAIRS.items() for char in chars}
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿˣ", "0123456789+-()nx", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙᵢₓ", "0123456789+-nix", strict=True))
_UP = "[" + "".join(_SUPERSCRIPTS) + "]+"
_DOWN = "[" + "".join(_SUBSCRIPTS) + "]+"
_SLASHED = re.compile(f"({_UP})⁄({_DOWN})")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_CHOOSE = re.compile(
    r"(?:\{\})?[_^]\s*(?:\{(\d+|[a-z])\}|(\d))\s*(?:C|\\(?:mathrm|text)\{C\})_\s*"
    r"(?:\{(\d+|[a-z])\}|(\d))"
)
_PLAIN_CHOOSE = re.compile(r"(?<![\w.}])(\d+)C(\d+)(?![\w.])")
_QUOTED = re.compile(r'["“]([^\W\d_][^\W_ ]*(?: [^\W_]+)*)["”]')
_BRACED_COLON = re.compile(r"(?<![A-Za-z])\{:\}")
_EMPTY_GROUP = re.compile(r"(?<=\d)\{\}(?=\^)")
_HALF_OF_DAY = re.compile(r"(?<![A-Za-z\\])([aApP])\.\s*[mM]\b\.?")
_PLAIN_LOG = re.compile(r"(?<![A-Za-z\\])log(2|10)(?=\()")
_US_DOLLAR = re.compile(r"(?<![A-Za-z\\])U\.?S\.?\s*(?=\\?\$\s*\d)")
_OVERLINED = re.compile("((?:[0-9][\u0305\u0304])+)")


def fold(text: str) -> str:
    """Return `text` in ASCII where a character has one meaning in an answer; others stay."""
    text = _BRACED_COLON.sub(":", _HALF_OF_DAY.sub(r"\1m ", _QUOTED.sub(r"\1", text)))
    text = _US_DOLLAR.sub("", text)
    text = _EMPTY_GROUP.sub("", _PLAIN_LOG.sub(r"log_{\1}", text))
    if text.isascii():
        return _fold_binomials(text)
    text = _OVERLINED.sub(lambda m: rf"\overline{{{m[1][::2]}}}", text)
    text = _SLASHED.sub(
        lambda m: rf"\frac{{{_plain(m[1], _SUPERSCRIPTS)}}}{{{_plain(m[2], _SUBSCRIPTS)}}}", text
    )
    text = _VULGAR.sub(_vulgar_fraction, text)
    text = re.sub(_UP, lambda m: f"^{{{_plain(m[0], _SUPERSCRIPTS)}}}", text)
    text = re.sub(_DOWN, lambda m: f"_{{{_plain(m[0], _SUBSCRIPTS)}}}", text)
    return _fold_binomials(unicodedata.normalize("NFKC", text.translate(_TABLE)))


def _fold_binomials(text: str) -> str:
    if "C" not in text:
        return text
    return _PLAIN_CHOOSE.sub(r"\\binom{\1}{\2}", _CHOOSE.sub(_binomial, text))


def _binomial(match: re.Match[str]) -> str:
    return rf"\binom{{{match[1] or match[2]}}}{{{match[3] or match[4]}}}"


def _plain(text: str, table: dict[str, str]) -> str:
    return "".join(table[char] for char in text)


def _vulgar_fraction(match: re.Match[str]) -> str:
    numerator, denominator = unicodedata.normalize("NFKC", match[0]).split("\u2044")
    return rf"\frac{{{numerator}}}{{{denominator}}}"
