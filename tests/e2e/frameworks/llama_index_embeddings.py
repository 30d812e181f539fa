"""llama-index: `OpenAIEmbedding` for texts and a query. Prints `ok`."""

import math
import sys

from llama_index.embeddings.openai import OpenAIEmbedding

embedding = OpenAIEmbedding(model_name="tiny", api_base=sys.argv[1], api_key="unused")

texts = embedding.get_text_embedding_batch(["w4 w5", "w6", "w7 w8 w9"])
query = embedding.get_query_embedding("w6")

assert len(texts) == 3
assert texts[1] == query
assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in texts)
sys.stdout.write("ok\n")
