"""Which fields tell of a person: marks that stand in the schemas, and that the analysts' view obeys.

A field without a mark is nobody's secret and passes into the analysts' view as it is (`events.pseudonyms`).
"""

from typing import Annotated

from msgspec import Meta

MARK = "x-personal"
"""The keyword in the JSON Schema."""

Person = Annotated[str, Meta(extra_json_schema={MARK: "person"})]
"""An AOR, a URI of a user, a number: becomes that person's pseudonym."""
Name = Annotated[str, Meta(extra_json_schema={MARK: "name"})]
"""Something of a person's own that joins records, such as a Call-ID: becomes a pseudonym, too."""
Place = Annotated[str, Meta(extra_json_schema={MARK: "place"})]
"""An IP address, or a URI that has one: left out."""
