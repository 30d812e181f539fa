"""The arguments of tool calls in a caller's history."""

from api.protocol.prompt.tool_turns import arguments_object
from storage.errors import InvalidRequest

NO_ARGUMENTS = "{}"


def checked_arguments(arguments: str | None, param: str) -> str:
    """The text of a JSON object, as it was sent; none at all is an empty object.

    param:  path of the field
    raises: InvalidRequest for a text that holds no JSON object
    """
    if arguments is None or not arguments.strip():
        return NO_ARGUMENTS
    if arguments_object(arguments) is None:
        raise InvalidRequest(f"Invalid '{param}': expected the text of a JSON object.", param=param)
    return arguments
