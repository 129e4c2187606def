"""The directive `{book-index}`: the index of the book as part of a page, so that it is in the PDF too.

Sphinx writes an index of its own (genindex.html), for HTML only and outside the table of contents. This one has the same
entries: the terms of the glossary, and what the pages mark with the role `{index}`.
"""

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.environment.adapters.indexentries import IndexEntries

PAGE = "book/appendix/terms"


class book_index(nodes.General, nodes.Element):
    """Stands where the index will be, until all pages have been read."""


class BookIndex(Directive):
    def run(self):
        return [book_index()]


def setup(app):
    app.add_node(book_index)
    app.add_directive("book-index", BookIndex)
    app.connect("doctree-resolved", fill)
    app.connect("env-get-outdated", outdated)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "version": "1"}


def outdated(app, env, added, changed, removed):
    """The page with the index changes when any page does."""
    holds = {PAGE} & set(env.found_docs)
    return sorted(holds) if added or changed or removed else []


class Places:
    """Stands in for a builder: an entry's address is its page's name, "#" and the place on the page."""

    def get_relative_uri(self, start: str, page: str) -> str:
        return page


def fill(app, doctree, docname) -> None:
    for place in list(doctree.findall(book_index)):
        letters = []
        for letter, entries in IndexEntries(app.env).create_index(Places()):
            lines = nodes.bullet_list()
            for name, (links, subentries, _) in entries:
                lines += item(app.builder, docname, name, links)
                if subentries:
                    lines[-1] += nodes.bullet_list(
                        "", *(item(app.builder, docname, sub, sublinks) for sub, sublinks in subentries)
                    )
            letters += [nodes.rubric("", str(letter)), lines]
        place.replace_self(nodes.container("", *letters, classes=["book-index"]))


def item(builder, docname, name, links):
    """A line "name, 3.2, 4.1": each page once, by its number or its title."""
    line = nodes.paragraph("", name)
    first = {}
    for _, address in links:
        page, _, place = address.partition("#")
        first.setdefault(page, place)
    for page, place in first.items():
        number = builder.env.toc_secnumbers.get(page, {}).get("", ())
        title = ".".join(map(str, number)) or builder.env.titles[page].astext()
        address = f"{builder.get_relative_uri(docname, page)}#{place}"
        line += [nodes.Text(", "), nodes.reference("", "", nodes.Text(title), refuri=address, internal=True)]
    return nodes.list_item("", line)
