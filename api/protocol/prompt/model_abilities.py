"""What a model can do beside plain text, as its chat template and its own description of answers tell."""

from collections.abc import Mapping

from api.protocol.families.detection import detected
from api.protocol.families.family import Family
from api.protocol.prompt.chat_template import ChatTemplate
from api.protocol.prompt.thinking_form import ModelThinking, model_thinking_of, thinking_form_of


def thinking_of(family: Family, template: ChatTemplate | None) -> ModelThinking:
    """What the model can do of thinking; found out by a few renderings."""
    if template is None:
        return ModelThinking()
    form = thinking_form_of(template.rendered_question)
    return model_thinking_of(family, form, template.rendered_question(form.arguments(is_on=False)))


def abilities_of(
    chat_template: str | None, special_tokens: Mapping[str, str], response_template: str | None
) -> dict[str, bool]:
    """The capabilities of a model manifest that depend on these: `tools`, `reasoning` and `structured_output`."""
    family, _ = detected(chat_template, response_template)
    template = None if chat_template is None else ChatTemplate(chat_template, special_tokens)
    return {
        # For a template that knows no tools, a system text declares them.
        "tools": template is not None and family.calls is not None,
        "reasoning": thinking_of(family, template).can_think,
        "structured_output": True,
    }


def tool_format_of(chat_template: str | None, response_template: str | None) -> str | None:
    """The name of the model's family; None for a model without calls."""
    family, _ = detected(chat_template, response_template)
    return None if family.calls is None else family.name
