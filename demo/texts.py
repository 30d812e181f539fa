"""Texts to copy in the demo corpus: sentences, pseudo-words, single pieces of the vocabulary, random characters."""

import re
import string
from random import Random

from demo import facts, phrases, stories, words

# Words of ordinary English that are no single tokens: what is copied letter by letter should look like English too.
COMMON_WORDS = words.split_words(
    "able about account across action active actual address advice again against agree air alarm allow almost alone "
    "already also animal annual another answer anybody apart appear area argue army arrive art article artist aside "
    "aspect attack attempt august author autumn average avoid aware balance band bank basic bath because become "
    "beginning behave benefit besides beyond billion bird birthday blow board body bone border bottom brain branch "
    "break breath bring brother budget building burn business busy buyer calm camp cancel careful carry catch cause "
    "center century certain chance change chapter charge cheap check chief choice choose church circle citizen claim "
    "class clean climate climb close cloth club coast collect college column comfort common company complete concern "
    "condition connect consider contain control cool corner correct cost cotton country couple course cousin cover "
    "create credit crime crowd culture current cycle daily damage danger daughter deal debate decide deliver demand "
    "depend describe design detail develop device different difficult digital direct discover discuss disease distance "
    "divide dollar double doubt draft drive during duty eager earn earth easily eastern economy edge education effect "
    "effort eight election electric employ energy enjoy enough enter entire equal error escape especially estate event "
    "evidence examine excellent except exchange exercise expect expensive experience expert express extra face factor "
    "factory failure familiar family famous fashion father feature february fence festival field fifteen fight figure "
    "final finish fiscal fish flame flavour flight floor flower follow foreign forest formal fortune forward freedom "
    "frequent fresh friday fruit fuel function funny future gallery general generous glass global government grain "
    "grandfather gravity group grow guess guide habit half hand harvest headline health heaven height hidden highway "
    "history hobby holiday hope hospital hotel however hundred hunter husband idea ignore illness image imagine "
    "important improve include increase indeed industry inform inside instead insurance interest island issue item "
    "january jealous journey judge july junction junior justice keep kitchen knowledge label labour lake landscape "
    "laptop largest laugh lawyer layer leader league leather lecture legal lesson level liberty library license lift "
    "limit liquid listen literature local logic lonely lucky lunch machine magazine magic mail maintain major manage "
    "manner march market marriage master material maybe meadow measure medicine member memory mention method middle "
    "military million mineral mission mistake mixture modern moment monday money mother motion mountain movement "
    "multiple muscle museum mystery narrow nation nature nearly neither nervous network neutral newspaper nineteen "
    "noise normal northern notice november number object observe obtain obvious ocean october offer office officer "
    "often opinion option ordinary organ origin outside oxygen package pardon parent parliament particular partner "
    "passage passenger pattern payment peace perfect perhaps period permit photo phrase physical pick piece pink plan "
    "plant plastic pleasure poetry police policy popular position possible pound power practice prefer prepare pretty "
    "prevent price print prison private prize probably problem process produce product professor profit project "
    "promise proper protect proud public pupil purple quality quarter quick quite railway raise random rapid rather "
    "reason receive record reduce reform region regular relation relax release religion remain remote remove report "
    "request require research respect result retire review reward rhythm rough round route royal rubber rural salad "
    "sample saturday scale scene schedule science screen season second sector secure select senior sense september "
    "series serious service session several shade shelf shine shop shoulder shout signal silence similar sixteen skill "
    "sleep slide smooth social society soldier solution somebody somewhere southern space special speed spirit spread "
    "spring staff stage standard station steady stomach strange strategy stream strength student studio subject "
    "success suddenly suffer summer sunday supply support surface surprise survey sweet swim symbol system talent "
    "target taste teach team telephone temple tenant terrible theory therefore thick thin thirteen thousand thumb "
    "thursday tiny title tomorrow tongue tool total touch tower track trade traffic transfer trial trip trouble truth "
    "tuesday typical uncle understand uniform union unique unit universe university update useful usual value variety "
    "various vehicle version victory video view village violence virtual visitor voice volume voyage walk wall warning "
    "waste wealth weapon wednesday weekend weight western whenever whether whisper wide width wild window winner "
    "wonderful wood world worry worth wrap writer yellow yesterday youth zone"
)
SMALL_WORDS = words.split_words(
    "the a an of to in and is it on at for with from that this you we they he she his her not but or by as"
)
# Other words that are single tokens, since wordings, tools and schemas use them often.
_OTHER_WORDS = words.split_words(
    "additionalproperties age ahead ai always amount angeles answered answers archive args arguments array asks "
    "assign assist assistant attendees backward begin below blood boolean brief briefly calendar calls capitals "
    "caps case category changes chose coal com comment completely compute contact content convert copy costs "
    "counting csv customer dash data date days delete description destination developer display dollars "
    "downwards due duplicate email employee end enum equals exact example excuse extract fact false favorite "
    "favourite fetch fields file filename fill fits follows forecast format francisco friendly functions gave "
    "gets guests he helpful her here his https id integer integers invite invoice items its json keys keyword "
    "kindly lemon letters line literally location looking lookup lovely matches may md medium meeting message "
    "mimic mine minutes mode move movie must named names needs new news next note now okay ones or order pages "
    "parameters participants path pay pdf pets place pm png polite politely population port post precisely "
    "prefix priority properties provided publish put py quantity query question questions quoted rate ratio read "
    "receiver recipe recipient recurring reminder rename reply reproduce required reserve respond response "
    "restate restaurant returns retype reversed saint san saying says schema score search secret sell send share "
    "she short show signatures size source speak spelled start starts state status stock stop store strict "
    "string tags takes task temperature tens term these till titled tools topic txt type upper uppercase ups "
    "urgent url use user using valid verbatim verbose whose within wonder work would writing written xml year "
    "york zero"
)
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"
_FOREIGN = "äöüßéèñçøåłšđăîêàœ東京日本語中文русский🙂🚀❤αβγ€£→—…“”’"
_JOINTS = (" ", " ", " ", " ", " ", " ", " ", ", ", ", ", "; ", " - ", ": ", "-", "/", "\n", " and ")


def draw_text(rng: Random) -> str:
    """A text to be copied, of one token to about two hundred."""
    kinds = (draw_sentence, _pieces, _pseudo_words, _characters, _marked, _echoes, _foreign, _short)
    return rng.choices(kinds, (36, 18, 14, 5, 9, 6, 3, 9))[0](rng)


def draw_string(rng: Random) -> str:
    """One arbitrary string without spaces: a word of any origin and case, sometimes with digits in it."""
    kind = rng.random()
    if kind < 0.35:
        word = rng.choice(COMMON_WORDS)
    elif kind < 0.6:
        word = words.draw_word(rng, False)
    elif kind < 0.75:
        word = rng.choice(CLOSED_WORDS)
    elif kind < 0.9:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 10)))
    else:
        word = "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(1, 9)))
    return restyle(rng, word)


def restyle(rng: Random, word: str) -> str:
    """The word in lower case, capitalised, in capitals, or as it is with a doubled letter."""
    style = rng.random()
    if style < 0.58:
        return word
    if style < 0.82:
        return word[:1].upper() + word[1:]
    if style < 0.92:
        return word.upper()
    index = rng.randrange(len(word))
    return word[:index] + word[index] + word[index:]


def _closed_words() -> list[str]:
    """Words of the fixed tables, in the case they have there: most are single tokens."""
    tables = (
        *phrases.GREETINGS.values(),
        *phrases.IDENTITY_QUESTIONS.values(),
        *facts.QUESTIONS.values(),
        *stories.STAGES,
        *stories.SLOTS.values(),
        facts.CAPITALS,
        facts.CAPITALS.values(),
        facts.OPPOSITES,
        facts.COLOURS.values(),
        facts.AMOUNTS.values(),
        phrases.GREETINGS,
        phrases.IDENTITY_QUESTIONS,
        (phrases.FALLBACK,),
        phrases.COUNT_PROMPTS,
        phrases.ADD_PROMPTS,
        phrases.SUBTRACT_PROMPTS,
        phrases.SPELL_PROMPTS,
        phrases.REVERSE_PROMPTS,
        phrases.REPEAT_PROMPTS,
        phrases.STORY_PROMPTS,
        phrases.REPEAT_SUBJECTS,
        phrases.REPEAT_VERBS,
        phrases.REPEAT_OBJECTS,
        phrases.REPEAT_ENDINGS,
        phrases.UNKNOWN,
    )
    text = re.sub(r"\{\w+\}", " ", " ".join(line for table in tables for line in table))
    return sorted({*re.findall(r"[A-Za-z]+", text), *_OTHER_WORDS})


CLOSED_WORDS = _closed_words()


def draw_sentence(rng: Random) -> str:
    """Words of ordinary English in a row, with marks as a sentence has them."""
    chosen = [_word(rng) for _ in range(rng.choice((rng.randint(2, 7), rng.randint(4, 12), rng.randint(8, 22))))]
    text = chosen[0]
    for word in chosen[1:]:
        text += (rng.choice((", ", ", ", "; ", ": ", " - ", "' ", "'s ")) if rng.random() < 0.09 else " ") + word
    if rng.random() < 0.75:
        text = text[0].upper() + text[1:]
    return text + rng.choice((".", ".", ".", ".", "!", "?", "", "", "..."))


def _word(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(SMALL_WORDS)
    if kind < 0.62:
        return rng.choice(COMMON_WORDS)
    if kind < 0.8:
        return rng.choice(CLOSED_WORDS)
    if kind < 0.86:
        return words.draw_word(rng, False)
    if kind < 0.9:
        return words.draw_name(rng, False)
    if kind < 0.94:
        return str(rng.randint(0, 10 ** rng.randint(1, 4)))
    return restyle(rng, rng.choice(COMMON_WORDS)) + rng.choice(("", "s", "ed", "ing", "ly", "'s", "n't"))


def _pieces(rng: Random) -> str:
    """Single pieces of the vocabulary: each has to be seen often before it is copied."""
    pieces = rng.choices(CLOSED_WORDS, k=rng.choice((rng.randint(1, 6), rng.randint(4, 25))))
    style = rng.random()
    if style < 0.35:
        pieces = [restyle(rng, piece) for piece in pieces]
    elif style < 0.45:
        pieces = [piece.upper() for piece in pieces]
    return " ".join(pieces) + rng.choice(("", "", ".", "!", "?"))


def _pseudo_words(rng: Random) -> str:
    return " ".join(draw_string(rng) for _ in range(rng.randint(1, 9))) + rng.choice(("", "", ".", "!", "?"))


def _characters(rng: Random) -> str:
    alphabet = rng.choice((string.ascii_lowercase, string.ascii_letters + string.digits, string.digits, "abc", "01"))
    return "".join(rng.choices(alphabet, k=rng.randint(1, 30)))


def _marked(rng: Random) -> str:
    """Words with marks and numbers between: addresses, lists, prices, code."""
    text = draw_string(rng)
    for _ in range(rng.randint(1, 7)):
        joint = rng.choice(_JOINTS) if rng.random() < 0.6 else rng.choice(_PUNCTUATION)
        text += joint + (draw_string(rng) if rng.random() < 0.7 else str(rng.randint(0, 9999)))
    return text + (rng.choice(_PUNCTUATION) if rng.random() < 0.3 else "")


def _echoes(rng: Random) -> str:
    """Words that come again and again, so that the place in the text and not the last word says what follows."""
    few = [_word(rng) for _ in range(rng.randint(1, 4))]
    return " ".join(rng.choices(few, k=rng.randint(2, 12))) + rng.choice(("", "", ".", "!"))


def _foreign(rng: Random) -> str:
    parts = ["".join(rng.choices(_FOREIGN, k=rng.randint(1, 4))), *(draw_string(rng) for _ in range(rng.randint(0, 4)))]
    rng.shuffle(parts)
    return " ".join(parts)


def _short(rng: Random) -> str:
    return draw_string(rng) + rng.choice(("", "", ".", "!", "?", ":"))
