"""Large XML files element by element, without entities, refused by name where they are not whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from beatmeter.errors import DataError, shown
from beatmeter.runtime.regular import open_file


def elements(path: Path, root: str, container: str, name: str, program: str) -> Iterator[Element]:
    """The elements called `name` inside the first `container` of a file whose outermost element is `root`;
    of others of that name (in playlists) nothing. Each is emptied after it was given. First comes the root,
    with its attributes.

    Raises DataError, with the line where the XML is broken.
    """
    hint = f"Export the collection again from {program}."
    try:
        with open_file(path, "rb") as file:
            yield from _walk(file, path, root, container, name, hint)
    except ParseError as error:
        raise DataError(f"{shown(path)}:{error.position[0]}: not valid XML: {error}", hint) from None
    except DefusedXmlException as error:
        raise DataError(f"{shown(path)} holds XML entities, which are not read", hint) from error
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}", "Check the path.") from None


def _walk(file: IO[Any], path: Path, root: str, container: str, name: str, hint: str) -> Iterator[Element]:
    stack: list[Element] = []
    for event, element in iterparse(file, events=("start", "end")):
        if event == "start":
            if not stack:
                if element.tag != root:
                    raise DataError(f"{shown(path)} begins with <{shown(element.tag)}>, not <{root}>", hint)
                yield element
            stack.append(element)
            continue
        stack.pop()
        inside = len(stack) == 2 and stack[1].tag == container
        if inside and element.tag == name:
            yield element
        if len(stack) <= 2:
            element.clear()
            if stack:
                stack[-1].remove(element)
