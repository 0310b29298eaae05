"""Words of the pages: texts of trials, shown as they are, and titles that tell tabs apart."""

import re

_JOINER = "\u2060"  # of no width, and no line ends at it
_SYNTAX = re.compile(
    r"[\\`*\[\]<>&$~#|]"  # emphasis, code, links, HTML, entities, LaTeX, headings, tables
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word, an underscore is only that
    r"|:(?=\S)"  # colours and other directives
    r"|^[-+=](?=[-+=\s]|$)"  # lists, rules, underlined headings
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")
_REPLACED_LATER = re.compile(  # in the parsed text, where escapes are gone
    r":(?=[\w+/-]+:)"  # an emoji's name, an icon's
    r"|https?:(?=//)|www(?=\.)|@(?=[\w-])"  # addresses, which become links
    r"|(?<!\S)[-<>~](?=(?:->|[->=])(?!\S))",  # arrows and other signs made of two or three
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """A text on one line, escaped so that Streamlit's Markdown shows it as it is.

    For texts of trials (errors, reasons, hosts, names) in whatever takes Markdown: titles, captions, messages, labels.
    Not for what doesn't, such as code, data frames and charts: there the escapes would be seen. Where Streamlit can't
    be kept from replacing something by an escape, as in `https://` or `:cat:`, a character of no width breaks it.
    What can't be printed is shown as the replacement character.
    """
    line = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    broken = _REPLACED_LATER.sub(rf"\g<0>{_JOINER}", printable)
    return _NUMBERED.sub(r"\1\\\2", _SYNTAX.sub(r"\\\g<0>", broken))


def page_title(sweep: str | None, page: str, trial: str | None = None) -> str:
    """A browser tab's title, the particular first: a tab shows little more than a dozen characters.

    A page sets it by `st.set_page_config(page_title=...)`, which may be called again after app.py has.
    """
    return " · ".join(part for part in (trial, page, sweep) if part)
