"""What `include` may ask for. Apart from the requests, which workers do not load."""

INCLUDED_LOGPROBS = "message.output_text.logprobs"
INCLUDED_THOUGHTS = "reasoning.encrypted_content"
