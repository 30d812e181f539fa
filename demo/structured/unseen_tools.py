"""The evaluation set of tools, results and forms that the generator of the demo corpus does not have.

Everyday tools and questions, written apart from the generator's tables and never to be copied into them; a test checks
that the generator makes none of these names and questions.
"""

from random import Random

from demo.dialog import Call, Definition, Dialog, Message, dump
from demo.phrases import FALLBACK
from demo.structured.requests import answer

_STRING: dict[str, object] = {"type": "string"}
# Name, description, parameters; a parameter without a `*` is required.
_TOOLS: dict[str, tuple[str, dict[str, dict[str, object]]]] = {
    "get_tide_table": ("Tide table of a harbor", {"harbor": _STRING, "date": {"type": "string", "description": "Day"}}),
    "track_parcel": ("Track a parcel by its tracking number.", {"tracking_number": _STRING}),
    "water_plants": ("Water the plants", {"bed": _STRING, "liters": {"type": "number"}}),
    "get_moon_phase": ("Returns the moon phase for a night", {"night": _STRING}),
    "rent_bicycle": ("Rent a bicycle at a station", {"station": _STRING, "hours": {"type": "integer"}}),
    "lock_door": ("Locks a door of the house.", {"door": {"type": "string", "enum": ["front", "back", "garage"]}}),
    "convert_units": (
        "Convert a value between units",
        {"value": {"type": "number"}, "from_unit": _STRING, "to_unit": _STRING},
    ),
    "list_ferries": ("List ferries", {"departure_port": _STRING, "arrival_port": _STRING}),
    "set_thermostat": (
        "Set the thermostat of a room",
        {"room": {"type": "string", "description": "e.g. bathroom"}, "degrees": {"type": "integer"}},
    ),
    "report_pothole": ("Report a pothole to the city", {"street": {"type": "string", "description": "Street name"}}),
    "tune_radio": (
        "Tune the radio",
        {"frequency": {"type": "number"}, "*band": {"type": "string", "enum": ["FM", "AM"]}},
    ),
    "buyGroceries": ("Buy groceries", {"articles": {"type": "array", "items": _STRING}}),
    "whoOwns": ("Find the owner of a vehicle by its licence plate", {"plate": _STRING}),
    "send_fax": ("Send a fax", {"faxNumber": _STRING, "page_text": _STRING}),
    "get_pollen_level": ("Get the pollen level", {"region_name": _STRING, "*plant": _STRING}),
    "start_dishwasher": ("Start the dishwasher", {"program": {"type": "string", "enum": ["eco", "quick", "glass"]}}),
}
_CALLS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("What does the tide table say for Dover on Friday?", "get_tide_table", {"harbor": "Dover", "date": "Friday"}),
    (
        "I sail tomorrow: show me the tide table of Marseille for 2027-04-19.",
        "get_tide_table",
        {"harbor": "Marseille", "date": "2027-04-19"},
    ),
    ("Where is my parcel 1Z-88213?", "track_parcel", {"tracking_number": "1Z-88213"}),
    ("Please track parcel RR4471DE for me.", "track_parcel", {"tracking_number": "RR4471DE"}),
    ("Water the plants in the rose bed with 2.5 liters.", "water_plants", {"bed": "rose", "liters": 2.5}),
    ("Could you water the plants in bed tomatoes, 4 liters?", "water_plants", {"bed": "tomatoes", "liters": 4}),
    ("What phase will the moon have on Saturday?", "get_moon_phase", {"night": "Saturday"}),
    ("Moon phase for December 24, please", "get_moon_phase", {"night": "December 24"}),
    (
        "I would love to rent a bicycle at Oak Square for 3 hours.",
        "rent_bicycle",
        {"station": "Oak Square", "hours": 3},
    ),
    ("Rent me a bicycle at Zoo, hours: 12", "rent_bicycle", {"station": "Zoo", "hours": 12}),
    ("Lock the garage door.", "lock_door", {"door": "garage"}),
    ("Did I lock the front door? Lock it now.", "lock_door", {"door": "front"}),
    ("Convert 12 miles to yards.", "convert_units", {"value": 12, "from_unit": "miles", "to_unit": "yards"}),
    ("Convert 7.25 pints to litres", "convert_units", {"value": 7.25, "from_unit": "pints", "to_unit": "litres"}),
    (
        "Which ferries go from Calais to Ramsgate?",
        "list_ferries",
        {"departure_port": "Calais", "arrival_port": "Ramsgate"},
    ),
    ("List ferries from Kiel to Gothenburg", "list_ferries", {"departure_port": "Kiel", "arrival_port": "Gothenburg"}),
    ("Set the thermostat of the kitchen to 21 degrees.", "set_thermostat", {"room": "kitchen", "degrees": 21}),
    ("It is freezing! Set the thermostat in the attic to 19.", "set_thermostat", {"room": "attic", "degrees": 19}),
    ("There is a pothole in Baker Street.", "report_pothole", {"street": "Baker Street"}),
    ("Report a pothole on Elm Avenue, please.", "report_pothole", {"street": "Elm Avenue"}),
    ("Tune the radio to 98.3.", "tune_radio", {"frequency": 98.3}),
    ("Tune the radio to frequency 101.7 with band FM", "tune_radio", {"frequency": 101.7, "band": "FM"}),
    ("Buy groceries: leeks, flour and yeast", "buyGroceries", {"articles": ["leeks", "flour", "yeast"]}),
    ("We need groceries, buy rice and lentils.", "buyGroceries", {"articles": ["rice", "lentils"]}),
    ("Who owns the vehicle with the plate B-KT 431?", "whoOwns", {"plate": "B-KT 431"}),
    ("Find the owner of plate 7XYZ812.", "whoOwns", {"plate": "7XYZ812"}),
    (
        'Send a fax to 555-0199 that says "We accept."',
        "send_fax",
        {"faxNumber": "555-0199", "page_text": "We accept."},
    ),
    ("How high is the pollen level in Tyrol?", "get_pollen_level", {"region_name": "Tyrol"}),
    ("What is the pollen level in Kent for birch?", "get_pollen_level", {"region_name": "Kent", "plant": "birch"}),
    ("Start the dishwasher on eco.", "start_dishwasher", {"program": "eco"}),
    ("Run the quick program of the dishwasher.", "start_dishwasher", {"program": "quick"}),
)
_PARALLEL: tuple[tuple[str, tuple[tuple[str, dict[str, object]], ...]], ...] = (
    (
        "Track the parcels KX81 and KX82.",
        (("track_parcel", {"tracking_number": "KX81"}), ("track_parcel", {"tracking_number": "KX82"})),
    ),
    (
        "What is the moon phase on Monday and on Thursday?",
        (("get_moon_phase", {"night": "Monday"}), ("get_moon_phase", {"night": "Thursday"})),
    ),
    (
        "How is the pollen level in Wales and Cornwall?",
        (("get_pollen_level", {"region_name": "Wales"}), ("get_pollen_level", {"region_name": "Cornwall"})),
    ),
    ("Lock the front door and the back door.", (("lock_door", {"door": "front"}), ("lock_door", {"door": "back"}))),
    (
        "Start the dishwasher on glass. Also, lock the garage door.",
        (("start_dishwasher", {"program": "glass"}), ("lock_door", {"door": "garage"})),
    ),
    (
        "Report a pothole in Mill Lane. Then track parcel 90021-A.",
        (("report_pothole", {"street": "Mill Lane"}), ("track_parcel", {"tracking_number": "90021-A"})),
    ),
    (
        "Tune the radio to 88.1. And set the thermostat of the hall to 18.",
        (("tune_radio", {"frequency": 88.1}), ("set_thermostat", {"room": "hall", "degrees": 18})),
    ),
    (
        "Who owns plate KM-11? Who owns plate KM-12?",
        (("whoOwns", {"plate": "KM-11"}), ("whoOwns", {"plate": "KM-12"})),
    ),
)
_NO_CALLS = (
    ("Hello!", "Hello! How can I help you?"),
    ("What is 17 + 25?", "17 + 25 = 30 + 12 = 42."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("Repeat this back: purple giraffes dance", "purple giraffes dance"),
    ("Thank you very much!", "You are welcome!"),
    ("Who invented the telescope?", FALLBACK),
    ("Translate butterfly into French.", FALLBACK),
    ("How do I repair a toaster?", FALLBACK),
    ("What is the weather in Lisbon?", FALLBACK),
    ("Book a table for Margaret.", FALLBACK),
    ("Spell walrus.", "w-a-l-r-u-s"),
    ("Count from 12 to 16.", "12, 13, 14, 15, 16"),
)
_RESULTS = (
    '{"level": "moderate", "trend": "falling"}',
    '{"status": "in transit", "hub": "Leipzig", "eta_days": 2}',
    '{"owner": "Ingrid Solheim"}',
    '{"phase": "waning crescent", "visible_percent": 12.5}',
    '{"locked": true, "battery": 81}',
    '{"departures": ["08:15", "13:40"], "vessel": "Stena Nord"}',
    '{"error": "street not found"}',
    '{"booking": "BX-2201", "cost": 14.75, "currency": "EUR"}',
    "High water at 14:32, low water at 20:51.",
    "Your groceries arrive at noon",
    "13.2",
    "The fax was transmitted.",
    "Machine is already running!",
    '{"Temperature": 19, "unit": "C"}',
)
# A text, and the values that a form may ask for; a schema names them, or a sentence does.
_FORMS: tuple[tuple[str, dict[str, object]], ...] = (
    ("Margaret is 42 years old and lives in Aberdeen.", {"name": "Margaret", "age": 42, "city": "Aberdeen"}),
    ("Theodore Banks, 19 years old, comes from Quebec.", {"name": "Theodore Banks", "age": 19, "city": "Quebec"}),
    (
        "The harvest party takes place on Sunday in Bristol.",
        {"name": "harvest party", "date": "Sunday", "location": "Bristol"},
    ),
    (
        "Alice and Bob are going to a science fair on Friday.",
        {"name": "science fair", "date": "Friday", "participants": ["Alice", "Bob"]},
    ),
    ("The garden hose costs 24.90 dollars.", {"product": "garden hose", "price": 24.9}),
    ("The price of the desk lamp is 35.", {"product": "desk lamp", "price": 35}),
    ("The ticket number is QF-881. The gate is B12.", {"ticket_number": "QF-881", "gate": "B12"}),
    ("Species: osprey\nWingspan: 1.7\nHabitat: lakes", {"species": "osprey", "wingspan": 1.7, "habitat": "lakes"}),
    (
        "The engine is diesel, the torque is 320 and the gearbox is manual.",
        {"engine": "diesel", "torque": 320, "gearbox": "manual"},
    ),
    ("Planet: Saturn, moons: 146, rings: true", {"planet": "Saturn", "moons": 146, "rings": True}),
    ("The invoice number is 7741 and the debtor is Wexford Ltd.", {"invoice_number": 7741, "debtor": "Wexford Ltd"}),
    (
        "The dish is goulash. The spice is paprika. The servings are 6.",
        {"dish": "goulash", "spice": "paprika", "servings": 6},
    ),
    ("Malala works as a nurse and lives in Lahore.", {"name": "Malala", "job": "nurse", "city": "Lahore"}),
    ("Middlemarch was written by George Eliot.", {"title": "Middlemarch", "author": "George Eliot"}),
    (
        "The password is xK9-tulip and the username is mvandenberg.",
        {"password": "xK9-tulip", "username": "mvandenberg"},
    ),
)
_FORM_REQUESTS = (
    "Please answer with JSON. The keys are {k}.",
    "I want a JSON object containing {k}.",
    "Convert this to JSON having {k} as its keys.",
    "Respond with JSON following this schema: {s}",
    "Your output must be a JSON object for the schema\n{s}",
    "Schema of your JSON answer: {s}",
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
