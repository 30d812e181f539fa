"""Every error that Tokenpost raises on purpose. HTTP statuses for them live in `api/errors.py`."""

from typing import ClassVar

# The header, as errors name it.
IDEMPOTENCY_KEY = "Idempotency-Key"


class PlatformError(Exception):
    """Root of all errors raised on purpose.

    code:      stable, machine-readable name of the fact
    retryable: whether the same request can succeed later without a change
    param:     the request field at fault, None where no field is
    """

    code: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(PlatformError):
    """The request breaks the protocol or a limit of it."""

    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A field that is unknown here, or known and not yet supported."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and requested output do not fit the model's context."""

    code = "context_length_exceeded"


class ContextTooLarge(InvalidRequest):
    """The conversation that `previous_response_id` continues holds more bytes than a chain of turns may."""

    code = "context_too_large"


class ConversationTooLarge(ContextTooLarge):
    """A conversation would hold more items, or more bytes of items, than it may."""


class ModelCapabilityMissing(InvalidRequest):
    """The model is of another kind than the request: an encoder, or one that generates text."""

    code = "model_capability_missing"


class InvalidToolChoice(InvalidRequest):
    """`tool_choice` names a tool that is not declared, or demands one where there is none."""

    code = "invalid_tool_choice"


class ToolsNotSupported(InvalidRequest):
    """The model writes no tool calls."""

    code = "tools_not_supported"


class MissingToolOutput(InvalidRequest):
    """A tool call in the history without its result."""

    code = "missing_tool_output"


class UnknownCallId(InvalidRequest):
    """A tool's result in the history that answers no call."""

    code = "unknown_call_id"


class ReasoningNotSupported(InvalidRequest):
    """The model cannot think, or cannot do without."""

    code = "reasoning_not_supported"


class InvalidEncryptedContent(InvalidRequest):
    """`encrypted_content` that this installation did not make, or made for another project or model."""

    code = "invalid_encrypted_content"


class PreviousResponseNotFound(InvalidRequest):
    """`previous_response_id` names no usable response of this owner."""

    code = "previous_response_not_found"


class InvalidJsonSchema(InvalidRequest):
    """A schema of the answer that does not compile, or that is not enforced as it asks."""

    code = "invalid_json_schema"


class InvalidFunctionParameters(InvalidRequest):
    """The same of a schema of a tool's arguments."""

    code = "invalid_function_parameters"


class InvalidGrammar(InvalidRequest):
    """A grammar or regular expression that does not compile."""

    code = "invalid_grammar"


class InvalidApiKey(PlatformError):
    """No key, or one that is unknown, revoked or expired."""

    code = "invalid_api_key"


class HostNotAllowed(PlatformError):
    """A Host header that is not a loopback name, while no key is required."""

    code = "host_not_allowed"


class JobNotFound(PlatformError):
    """No such job for this owner, or it was erased."""

    code = "not_found"


class ConversationNotFound(PlatformError):
    """No such conversation for this owner, or it was deleted."""

    code = "not_found"


class ConversationLocked(PlatformError):
    """Another turn of the conversation has not ended."""

    code = "conversation_locked"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "Another response of this conversation has not ended yet. Please try again when it has.",
            param="conversation",
        )


class ConversationChanged(ConversationLocked):
    """Items were added to the conversation while a prompt was made from it."""


class ConversationItemNotFound(PlatformError):
    """The conversation has no item of this id."""

    code = "not_found"


class ModelNotFound(PlatformError):
    """No worker ever served this model."""

    code = "model_not_found"


class JobConflict(PlatformError):
    """The job is in a state that does not allow this operation."""

    code = "conflict"


class IdempotencyKeyInUse(PlatformError):
    """The first call with this key is being accepted at this moment."""

    code = "idempotency_key_in_use"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being accepted just now. Please try again in a moment.",
            param=IDEMPOTENCY_KEY,
        )


class IdempotencyKeyReused(PlatformError):
    """Another call, with another path or body, came with this key before."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used with another path or body before. Please use a fresh one.",
            param=IDEMPOTENCY_KEY,
        )


class FileNotFound(PlatformError):
    """No such file for this owner, or it expired or was deleted."""

    code = "not_found"


class FileInUse(PlatformError):
    """The file is still being read, by a batch for example."""

    code = "file_in_use"


class FileStorageFull(InvalidRequest):
    """The owner's files hold as many bytes, or are as many, as may be stored."""

    code = "file_storage_full"


class UploadInterrupted(PlatformError):
    """A file that was being written was given up, or somebody else wrote it."""

    code = "upload_interrupted"
    retryable = True


class BatchNotFound(PlatformError):
    """No such batch for this owner, or it was erased."""

    code = "not_found"


class BatchConflict(PlatformError):
    """The batch is in a state that does not allow this operation."""

    code = "conflict"


class InvalidBatchLine(InvalidRequest):
    """A request of a batch that cannot be read; requests of an input file are reported in the batch's `errors`."""

    code = "invalid_batch_line"


class NothingToRetry(InvalidRequest):
    """A batch without lines that failed, expired or were cancelled."""

    code = "nothing_to_retry"


class BodyTooLarge(PlatformError):
    """The request body is larger than the limit."""

    code = "request_too_large"


class FileTooLarge(BodyTooLarge):
    """The file is larger than files of its purpose may be."""

    code = "file_too_large"


class UnsupportedMediaType(PlatformError):
    """A body of another media type than the path takes."""

    code = "unsupported_media_type"


class ModelUnavailable(PlatformError):
    """No worker of this model is alive; a background job would be queued."""

    code = "model_unavailable"
    retryable = True


class Busy(PlatformError):
    """Too many jobs wait; `retry_after_s` tells when there is room again."""

    retryable = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyFailedLogins(Busy):
    """More unknown API keys came from one address at once than are looked up."""

    code = "too_many_failed_logins"


class TooManyTransfers(Busy):
    """As many files are being uploaded or downloaded as may, by this caller or by all."""

    code = "too_many_transfers"


class TooManyWaiting(Busy):
    """As many of the owner's jobs wait as may."""

    code = "rate_limit_exceeded"


class Overloaded(Busy):
    """As many jobs wait for the model as may."""

    code = "overloaded"


class ModelLoadFailed(ModelUnavailable):
    """The model could not be loaded; the message says why. Trying again helps only after somebody has acted."""

    retryable = False


class StorageUnavailable(PlatformError):
    """The database or Redis does not answer."""

    code = "storage_unavailable"
    retryable = True


class FormatUnknown(PlatformError):
    """A stored value whose format only a later version of this program reads, as during a rolling upgrade."""

    code = "format_unknown"
    retryable = True

    def __init__(self, found: str) -> None:
        super().__init__(f"This process cannot read {found}: a newer version wrote it.")


class ShuttingDown(PlatformError):
    """This process is going down; another one, or the next one, can answer."""

    code = "shutting_down"
    retryable = True


class GenerationFailed(PlatformError):
    """The job reached `failed`; the message is the job's own."""

    code = "server_error"
    retryable = True


class SettingInvalid(PlatformError):
    """A setting that stops the process at start; the message names it."""

    code = "setting_invalid"


class ModelFilesMissing(PlatformError):
    """The model's files are not there, or not all of them; the message says where they were looked for."""

    code = "model_files_missing"


class ModelUnsupported(PlatformError):
    """A model that this platform cannot run; the message says why."""

    code = "model_unsupported"


def reason_of(error: Exception) -> str:
    """Why something failed, for people: the message of our own errors, class and text of any other."""
    return error.message if isinstance(error, PlatformError) else f"{type(error).__name__}: {error}"
