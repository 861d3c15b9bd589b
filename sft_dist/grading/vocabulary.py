"""The names the grader knows: macros, functions, constants, words of plain text."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


GREEK = _names(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda "
    "mu nu xi omicron rho varrho sigma varsigma tau upsilon phi varphi chi psi omega Gamma "
    "Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar"
)
SAME_LETTER = {"varepsilon": "epsilon", "vartheta": "theta", "varphi": "phi", "varrho": "rho"}

FUNCTIONS = _names(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth "
    "sech csch cis ln log lg exp gcd lcm max min det floor ceil sqrt cbrt abs binom deg dim "
    "ker Re Im arg sgn"
)
ALSO_UNITS = _names("min sec deg max det dim arg")
ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot",
    "cosec": "csc", "arctg": "arctan", "ceiling": "ceil", "lg": "log", "sign": "sgn",
    "nCr": "binom", "comb": "binom",
}  # fmt: skip
INVERSES = {"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"}

RELATIONS = {
    "=": "=", "==": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "=<": "<=", "=>": "to",
    "ne": "!=", "neq": "!=", "le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=",
    "geq": ">=", "geqslant": ">=", "geqq": ">=", "lt": "<", "gt": ">", "in": "in",
    "approx": "approx", "doteq": "approx", "equiv": "equiv", "sim": "sim", "cong": "cong",
    "to": "to", "rightarrow": "to", "Rightarrow": "implies", "implies": "implies", "mid": "mid",
    "perp": "perp", "parallel": "parallel", "subset": "subset", "subseteq": "subseteq",
    "propto": "propto", "iff": "iff", "mapsto": "mapsto", "notin": "notin",
    "longrightarrow": "to", "colon": ":", "thickapprox": "approx", "simeq": "approx",
}  # fmt: skip
MULTIPLICATIONS = {"*", "cdot", "times", "ast", "bullet"}
DIVISIONS = {"/", "div"}

IGNORED_MACROS = _names(
    "quad qquad displaystyle textstyle scriptstyle limits nolimits left right big Big bigg "
    "Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle thinspace enspace "
    "negthinspace space medspace thickspace boxed fbox nobreak allowbreak rm bf it "
    "normalsize large Large strut notag nonumber"
)
SWALLOWED_MACROS = _names("hspace hspace* vspace phantom hphantom vphantom kern label")
BOLD_FONTS = _names("mathbf boldsymbol bm bold pmb")
FONTS = BOLD_FONTS | _names("mathnormal mathit ensuremath")
ALPHABETS = _names("mathbb mathcal mathfrak mathscr")
TEXTS = _names(
    "text textbf textit textrm textnormal textsf texttt textsc textup textmd mbox hbox "
    "mathrm mathsf mathtt operatorname emph rm"
)
UPRIGHT = {"operatorname", "mathrm"}
DECORATIONS = _names(
    "overline bar vec hat widehat tilde widetilde overrightarrow overleftarrow underline "
    "overarc wideparen dot ddot overset stackrel angle triangle measuredangle widearc arc "
    "overleftrightarrow square odot"
)
PLAIN_CONSTANTS = {"pi": "pi", "infinity": "infty", "inf": "infty", "oo": "infty",
                   "infty": "infty", "emptyset": "emptyset",
                   "union": "cup"}  # fmt: skip
SHORT_WORDS = _names(
    "cm mm km kg mg ft mi lb lbs oz hr hrs min sec mph kph yd yds sq am pm AM PM USD or "
    "and Or And OR AND no yes No Yes one two six ten ml mL deg rad odd Odd if If is to of "
    "cc rpm per day way men red Sun Mon Tue Wed Thu Fri Sat the The cup box"
)
SUBSTITUTED = {"lbrace": "\\{", "rbrace": "\\}", "lbrack": "[", "rbrack": "]", "lparen": "(",
               "rparen": ")", "vert": "|", "lvert": "|", "rvert": "|", "Vert": "\\|",
               "lVert": "\\|", "rVert": "\\|", "dfrac": "frac", "tfrac": "frac", "cfrac": "frac",
               "dbinom": "binom", "tbinom": "binom", "rangle": "rangle", "lt": "<", "gt": ">",
               "dots": "ldots", "cdots": "ldots", "dotsc": "ldots", "dotsb": "ldots",
               "varnothing": "emptyset", "backslash": "setminus", "smallsetminus": "setminus",
               "vee": "lor", "wedge": "land", "iota": "iota", "lnot": "neg",
               "degree": "degree", "sb": "_", "sp": "^", "leftarrow": "leftarrow",
               "textdegree": "degree", "bigcup": "cup", "textpi": "pi",
               "texttimes": "times", "Bbb": "mathbb"}  # fmt: skip
NOT_UNITS = _names(  # words that change what a value before them says
    "if or and to mod modulo base not than over root squared cubed more less fewer remainder "
    "half third quarter times plus minus twice double when where for with is are equals equal "
    "by from at least most between none no but except only divided power r rem through "
    "approximately about approx factorial factorials pi doubled tripled quadrupled halved "
    "reciprocal below under beneath before without unless wrong false incorrect infinity "
    "infinite matrix halves thirds fourths fifths sixths sevenths eighths ninths "
    "tenths hundredth hundredths thousandth thousandths millionth millionths"
)
