"""langchain-openai: `OpenAIEmbeddings` for documents and a query. Prints `ok`."""

import math
import sys

from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

# By default it sends token ids of OpenAI's own models, which no other model can read.
embeddings = OpenAIEmbeddings(
    model="tiny",
    base_url=sys.argv[1],
    api_key=SecretStr("unused"),
    check_embedding_ctx_length=False,
)

documents = embeddings.embed_documents(["w4 w5", "w6", "w7 w8 w9"])
query = embeddings.embed_query("w6")

assert len(documents) == 3
assert documents[1] == query
assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in documents)
sys.stdout.write("ok\n")
