"""The evaluation set of tools, results and forms that the generator of the demo corpus does not have.

Everyday tools and questions, written by somebody who had not read the generator and never to be copied into its
tables; a test checks that the generator makes none of these names and questions.
"""

from random import Random

from demo.dialog import Call, Definition, Dialog, Message, dump
from demo.phrases import FALLBACK
from demo.structured.requests import answer

_STRING: dict[str, object] = {"type": "string"}
# Name, description, parameters; a parameter without a `*` is required.
_TOOLS: dict[str, tuple[str, dict[str, dict[str, object]]]] = {
    "temperature_at": (
        "Current temperature at a place",
        {
            "place": {"type": "string", "description": "City or town, e.g. Graz"},
            "*scale": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        },
    ),
    "order_taxi": ("Orders a taxi.", {"pickup_address": _STRING, "*passengers": {"type": "integer"}}),
    "findRecipe": ("Find a recipe with an ingredient", {"ingredient": _STRING, "*maxMinutes": {"type": "integer"}}),
    "play_podcast": ("Play the newest episode of a podcast", {"show": _STRING}),
    "feed_cat": ("Feed the cat", {"grams": {"type": "integer", "description": "Amount of food"}}),
    "open_blinds": (
        "Open the blinds of a window.",
        {"window": {"type": "string", "enum": ["kitchen", "office", "den"]}},
    ),
    "quote_currency_pair": ("Exchange rate between two currencies", {"base": _STRING, "quote": _STRING}),
    "check_inventory": ("How many items of an SKU are in stock", {"sku": _STRING, "*warehouse": _STRING}),
    "restart_server": ("Restart a server", {"hostname": {"type": "string", "description": "Host to restart"}}),
    "open_support_ticket": (
        "Open a ticket for the support team",
        {"title": _STRING, "priority": {"type": "string", "enum": ["low", "normal", "high"]}},
    ),
    "lookup_isbn": ("Look up a book by its ISBN", {"isbn": _STRING}),
    "reserve_court": ("Reserve a tennis court", {"day": _STRING, "hour": {"type": "integer"}}),
    "print_label": ("Print a label", {"text": _STRING, "copies": {"type": "integer"}}),
    "get_sunset": ("Time of sunset in a town", {"town": _STRING, "*day": _STRING}),
    "mixPaint": ("Mix paint from several colors", {"colors": {"type": "array", "items": _STRING}}),
    "snooze_alarm": ("Snooze the alarm for some minutes", {"minutes": {"type": "number"}}),
    "transfer_money": (
        "Transfer money to somebody",
        {"recipient": _STRING, "amount": {"type": "number"}, "*currency": _STRING},
    ),
    "ping_host": ("Ping a host on the network", {"host": _STRING}),
    "resizeImage": (
        "Resize an image file",
        {"fileName": _STRING, "width": {"type": "integer"}, "height": {"type": "integer"}},
    ),
    "log_run": ("Log a run in the training diary", {"kilometers": {"type": "number"}, "route": _STRING}),
    "flip_coin": ("Flips a coin", {}),
}
_CALLS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("How warm is it in Graz right now?", "temperature_at", {"place": "Graz"}),
    ("What's the temperature in Osaka?", "temperature_at", {"place": "Osaka"}),
    (
        "Tell me the current temperature in Boston in fahrenheit.",
        "temperature_at",
        {"place": "Boston", "scale": "fahrenheit"},
    ),
    ("I need a taxi at 14 Harbour Road.", "order_taxi", {"pickup_address": "14 Harbour Road"}),
    (
        "Order a taxi to pick us up at Hotel Astoria, 4 passengers.",
        "order_taxi",
        {"pickup_address": "Hotel Astoria", "passengers": 4},
    ),
    ("Find me a recipe with pumpkin.", "findRecipe", {"ingredient": "pumpkin"}),
    ("What can I cook with tofu in at most 20 minutes?", "findRecipe", {"ingredient": "tofu", "maxMinutes": 20}),
    ("Play the podcast Radiolab.", "play_podcast", {"show": "Radiolab"}),
    ("I'd like to hear the podcast Hard Fork", "play_podcast", {"show": "Hard Fork"}),
    ("Give the cat 45 grams of food.", "feed_cat", {"grams": 45}),
    ("The cat is hungry! Feed it 60 grams.", "feed_cat", {"grams": 60}),
    ("Open the blinds in the office.", "open_blinds", {"window": "office"}),
    ("It is so dark in the den, please open the blinds.", "open_blinds", {"window": "den"}),
    ("What is the exchange rate from CHF to SEK?", "quote_currency_pair", {"base": "CHF", "quote": "SEK"}),
    ("Exchange rate EUR to JPY today?", "quote_currency_pair", {"base": "EUR", "quote": "JPY"}),
    ("How many of SKU LMP-300 do we have in stock?", "check_inventory", {"sku": "LMP-300"}),
    (
        "Check the inventory for sku 88-Kx2 in warehouse Utrecht.",
        "check_inventory",
        {"sku": "88-Kx2", "warehouse": "Utrecht"},
    ),
    ("Restart the server web-03.", "restart_server", {"hostname": "web-03"}),
    ("db1.internal hangs again, restart it please", "restart_server", {"hostname": "db1.internal"}),
    (
        'Open a support ticket titled "Login page is blank" with high priority.',
        "open_support_ticket",
        {"title": "Login page is blank", "priority": "high"},
    ),
    (
        "New ticket please, priority low, title: Typo in footer",
        "open_support_ticket",
        {"title": "Typo in footer", "priority": "low"},
    ),
    ("Which book has the ISBN 9780141439518?", "lookup_isbn", {"isbn": "9780141439518"}),
    ("Look up ISBN 0-306-40615-2", "lookup_isbn", {"isbn": "0-306-40615-2"}),
    ("Reserve a tennis court on Wednesday at 18.", "reserve_court", {"day": "Wednesday", "hour": 18}),
    ("We want to play tennis tomorrow at 9, book us a court.", "reserve_court", {"day": "tomorrow", "hour": 9}),
    ('Print 3 copies of a label that reads "Fragile".', "print_label", {"text": "Fragile", "copies": 3}),
    ("Print a label with the text Box 17, copies: 2", "print_label", {"text": "Box 17", "copies": 2}),
    ("When does the sun set in Porto?", "get_sunset", {"town": "Porto"}),
    ("What time is sunset in Reykjavik on June 21?", "get_sunset", {"town": "Reykjavik", "day": "June 21"}),
    ("Mix red and white paint.", "mixPaint", {"colors": ["red", "white"]}),
    ("Please mix me a paint from blue, yellow and black.", "mixPaint", {"colors": ["blue", "yellow", "black"]}),
    ("Let me sleep another 10 minutes.", "snooze_alarm", {"minutes": 10}),
    ("Snooze the alarm for 7.5 minutes", "snooze_alarm", {"minutes": 7.5}),
    ("Transfer 250 to Priya.", "transfer_money", {"recipient": "Priya", "amount": 250}),
    (
        "Send 19.99 USD to Marco Rossi.",
        "transfer_money",
        {"recipient": "Marco Rossi", "amount": 19.99, "currency": "USD"},
    ),
    ("Ping example.com", "ping_host", {"host": "example.com"}),
    ("Is the host 10.0.0.7 up? Ping it.", "ping_host", {"host": "10.0.0.7"}),
    (
        "Resize holiday.png to width 640 and height 480.",
        "resizeImage",
        {"fileName": "holiday.png", "width": 640, "height": 480},
    ),
    ("Log a run of 8.4 kilometers, route River Loop.", "log_run", {"kilometers": 8.4, "route": "River Loop"}),
    ("I ran 12 kilometers on the route Old Mill today, log it.", "log_run", {"kilometers": 12, "route": "Old Mill"}),
    ("Flip a coin.", "flip_coin", {}),
    ("Heads or tails? Please flip a coin for us.", "flip_coin", {}),
)
_PARALLEL: tuple[tuple[str, tuple[tuple[str, dict[str, object]], ...]], ...] = (
    (
        "What is the temperature in Tunis and in Helsinki?",
        (("temperature_at", {"place": "Tunis"}), ("temperature_at", {"place": "Helsinki"})),
    ),
    (
        "Restart the servers web-01 and web-02.",
        (("restart_server", {"hostname": "web-01"}), ("restart_server", {"hostname": "web-02"})),
    ),
    (
        "Open the blinds in the kitchen and in the office.",
        (("open_blinds", {"window": "kitchen"}), ("open_blinds", {"window": "office"})),
    ),
    (
        "When is sunset in Lima? And when is sunset in Quito?",
        (("get_sunset", {"town": "Lima"}), ("get_sunset", {"town": "Quito"})),
    ),
    (
        "Feed the cat 30 grams, then play the podcast Serial.",
        (("feed_cat", {"grams": 30}), ("play_podcast", {"show": "Serial"})),
    ),
    (
        "Transfer 40 to Yuki and 75 to Chloe.",
        (
            ("transfer_money", {"recipient": "Yuki", "amount": 40}),
            ("transfer_money", {"recipient": "Chloe", "amount": 75}),
        ),
    ),
    (
        "Ping gateway.local. Also restart the server cache-9.",
        (("ping_host", {"host": "gateway.local"}), ("restart_server", {"hostname": "cache-9"})),
    ),
    (
        "Look up the ISBNs 9780261103573 and 9780547928227.",
        (("lookup_isbn", {"isbn": "9780261103573"}), ("lookup_isbn", {"isbn": "9780547928227"})),
    ),
    (
        "Find a recipe with lentils and order a taxi at 9 Elm Street.",
        (("findRecipe", {"ingredient": "lentils"}), ("order_taxi", {"pickup_address": "9 Elm Street"})),
    ),
    (
        "How many do we have of SKU A10? And of SKU B20?",
        (("check_inventory", {"sku": "A10"}), ("check_inventory", {"sku": "B20"})),
    ),
)
_NO_CALLS = (
    ("Hi there!", "Hello! How can I help you?"),
    ("How are you?", "I am fine, thank you. How can I help you?"),
    ("What is 34 + 58?", "34 + 58 = 80 + 12 = 92."),
    ("What is the capital of Spain?", "The capital of Spain is Madrid."),
    ("Repeat after me: seven green bottles", "seven green bottles"),
    ("Thanks a lot!", "You are welcome!"),
    ("Who painted the Mona Lisa?", FALLBACK),
    ("Translate umbrella into Spanish.", FALLBACK),
    ("How do I change a bicycle tyre?", FALLBACK),
    ("Who won the football match yesterday?", FALLBACK),
    ("Book a flight to Nairobi.", FALLBACK),
    ("How tall is the Eiffel Tower?", FALLBACK),
    ("Spell badger.", "b-a-d-g-e-r"),
    ("Count from 21 to 26.", "21, 22, 23, 24, 25, 26"),
)
_RESULTS = (
    '{"temperature": 23.5, "humidity": 61}',
    '{"status": "delivered", "signed_by": "K. Olsen"}',
    '{"ok": true}',
    '{"price": 18.2, "currency": "GBP", "in_stock": false}',
    '{"title": "Pride and Prejudice", "pages": 432}',
    '{"orderId": "TX-90-b", "driver": "Amira"}',
    '{"steps": ["peel the carrots", "boil them"], "minutes": 25}',
    '{"error": "no such host"}',
    '{"confirmation_code": "QZ7PLM", "court": 4}',
    '{"sunset": "21:07"}',
    '{"low": -6, "high": 2, "sky": "light snow"}',
    '{"side": "heads"}',
    "The driver is on the way.",
    "Not enough money in the account!",
    "Saved as holiday_small.png",
    "1048.75",
)
# A text, and the values that a form may ask for; a schema names them, or a sentence does.
_FORMS: tuple[tuple[str, dict[str, object]], ...] = (
    ("Priya is 29 years old and lives in Mumbai.", {"name": "Priya", "age": 29, "city": "Mumbai"}),
    ("My name is Lukas Brandt, I am 54 and I live in Linz.", {"name": "Lukas Brandt", "age": 54, "city": "Linz"}),
    (
        "The team meeting is on Tuesday in room 4B.",
        {"event": "team meeting", "day": "Tuesday", "room": "4B"},
    ),
    (
        "Chloe, Raj and Yuki are playing chess on Saturday.",
        {"game": "chess", "day": "Saturday", "players": ["Chloe", "Raj", "Yuki"]},
    ),
    ("A kilo of cherries costs 7.80 euros.", {"product": "cherries", "price": 7.8}),
    ("The wireless mouse is on sale for 19 dollars.", {"product": "wireless mouse", "price": 19}),
    ("Flight LH-441 leaves from gate C22 at 10:35.", {"flight": "LH-441", "gate": "C22", "time": "10:35"}),
    ("Model: T-800\nWeight: 72.5\nColor: silver", {"model": "T-800", "weight": 72.5, "color": "silver"}),
    ("The order id is 55120 and the customer is Acme Corp.", {"order_id": 55120, "customer": "Acme Corp"}),
    (
        "The bug is a memory leak. The severity is high. The version is 3.1.4.",
        {"bug": "memory leak", "severity": "high", "version": "3.1.4"},
    ),
    (
        "Country: Chile, population: 19500000, island: false",
        {"country": "Chile", "population": 19500000, "island": False},
    ),
    ("Amira Haddad is a dentist from Tunis.", {"name": "Amira Haddad", "job": "dentist", "city": "Tunis"}),
    ("Dune is a novel by Frank Herbert from 1965.", {"title": "Dune", "author": "Frank Herbert", "year": 1965}),
    ("The host is mail.example.org and the port is 587.", {"host": "mail.example.org", "port": 587}),
    ("Our dog Biscuit is a beagle and 3 years old.", {"name": "Biscuit", "breed": "beagle", "age": 3}),
    (
        "The recipe needs flour, butter and sugar and takes 40 minutes.",
        {"ingredients": ["flour", "butter", "sugar"], "minutes": 40},
    ),
    ("Contact Yuki Tanaka at yuki@example.com.", {"name": "Yuki Tanaka", "email": "yuki@example.com"}),
    (
        "The username is dShawn_77, the plan is premium and the seats are 12.",
        {"username": "dShawn_77", "plan": "premium", "seats": 12},
    ),
)
_FORM_REQUESTS = (
    "Extract {k} from the text and give them to me as JSON.",
    "Turn the text into JSON. Fields: {k}.",
    "Reply only with a JSON object that has the fields {k}.",
    "Return JSON that is valid under this schema: {s}",
    "Output format: JSON. Schema:\n{s}",
    "Parse the text. Your reply is one JSON object, its schema is {s}",
    "I need a JSON object out of this text, with {k}.",
)
SKILLS = ("tool_call", "parallel_calls", "no_call", "tool_result", "form")

Asked = tuple[Dialog, Message]


def draw(skill: str, num_cases: int) -> list[Asked]:
    """Different dialogs of a skill that end before the answer, each with the right one."""
    rng = Random(f"unseen {skill}")
    drawn: dict[str, Asked] = {}
    for index in range(20 * num_cases):
        asked = _asked(skill, index, rng)
        drawn.setdefault(asked[0].prompt(), asked)
        if len(drawn) == num_cases:
            break
    return list(drawn.values())


def _asked(skill: str, index: int, rng: Random) -> Asked:
    match skill:
        case "tool_call":
            question, name, arguments = _CALLS[index % len(_CALLS)]
            return _calling(rng, question, [Call(name=name, arguments=arguments)])
        case "parallel_calls":
            question, calls = _PARALLEL[index % len(_PARALLEL)]
            return _calling(rng, question, [Call(name=name, arguments=arguments) for name, arguments in calls])
        case "no_call":
            question, reply = _NO_CALLS[index % len(_NO_CALLS)]
            prompt = Dialog(messages=[Message(role="user", content=question)], tools=_toolbox(rng, set()))
            return prompt, Message(role="assistant", content=reply)
        case "tool_result":
            question, name, arguments = rng.choice(_CALLS)
            prompt, call = _calling(rng, question, [Call(name=name, arguments=arguments)])
            text = _RESULTS[index % len(_RESULTS)]
            messages = [*prompt.messages, call, Message(role="tool", content=text)]
            return Dialog(messages=messages, tools=prompt.tools), Message(role="assistant", content=answer(text))
        case _:
            return _form(index, rng)


def _calling(rng: Random, question: str, calls: list[Call]) -> Asked:
    tools = _toolbox(rng, {call.name for call in calls})
    prompt = Dialog(messages=[Message(role="user", content=question)], tools=tools)
    return prompt, Message(role="assistant", content="", calls=tuple(calls))


def _toolbox(rng: Random, needed: set[str]) -> tuple[Definition, ...]:
    others = [name for name in _TOOLS if name not in needed]
    names = [*sorted(needed), *rng.sample(others, k=rng.randint(0 if needed else 1, 2))]
    rng.shuffle(names)
    return tuple(_definition(name) for name in names)


def _definition(name: str) -> Definition:
    description, parameters = _TOOLS[name]
    properties = {key.lstrip("*"): schema for key, schema in parameters.items()}
    required = [key for key in parameters if not key.startswith("*")]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def _form(index: int, rng: Random) -> Asked:
    text, record = _FORMS[index % len(_FORMS)]
    request = _FORM_REQUESTS[(index + index // len(_FORMS)) % len(_FORM_REQUESTS)]
    types: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
    properties = {key: {"type": types[type(value)]} for key, value in record.items()}
    schema = {"type": "object", "properties": properties, "required": list(record)}
    keys = f"{', '.join(list(record)[:-1])} and {list(record)[-1]}"
    asked = request.format(k=keys, s=dump(schema))
    messages = [Message(role="system", content=asked), Message(role="user", content=text)]
    if rng.random() < 0.5:
        messages = [Message(role="user", content=f"{text}\n{asked}")]
    return Dialog(messages=messages), Message(role="assistant", content=dump(record))
