#!/usr/bin/env python3
"""Writes the tokenizers and vectors that tests/engine/tokenizer holds against Hugging Face.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install tokenizers
    /tmp/venv/bin/python tools/tokenizer_vectors.py tests/engine/tokenizer/data

It trains two small byte-level BPE tokenizers with the pre-tokenization of Qwen2 (NFC) and of
Llama-3 (ignore_merges, BOS by template), generates strings from a fixed seed, and stores the ids
that Hugging Face `tokenizers` gives for each.

vectors.jsonl has one object a line:
  t  the text
  n  its NFC, where that differs from t
  q  ids of the Qwen2-like tokenizer, special tokens being ordinary text
  Q  the same with special tokens parsed, where that differs from q
  l, L  likewise for the Llama-3-like tokenizer
An id is two characters of the base64 alphabet, the more significant first.

Libraries carry different Unicode versions. A code point is used only if Python's tables know it
and Hugging Face's normalizer agrees with them about its combining class (its tables stop at
Unicode 9). Python 3.11 has Unicode 14, as has PCRE2 10.42; use that or an older one.
"""

import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
STRINGS = 12000
VOCAB = 1900

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_REGEX = QWEN2_REGEX.replace(r"\p{N}| ", r"\p{N}{1,3}| ")

SENTENCES = """
The quick brown fox jumps over the lazy dog, and it doesn't care; they've seen it before.
She said that we'll learn what I'm reading, it's what you'd expect from them, isn't it?
The river carried the old boat to the village where the bridge had been built by the miller.
Der schnelle braune Fuchs springt über den faulen Hund, während Bäume im Wind rauschen.
Le garçon mangeait des crêpes à la fenêtre où l'été s'achevait déjà, n'est-ce pas ?
El niño pequeño corrió mañana por la montaña; ¿quién sabe adónde llegó?
A criança não sabia que a canção já tinha acabado, então dançou até ao amanhecer.
Zażółć gęślą jaźń, a potem wróć do domu przez łąkę i ciemny las.
Příliš žluťoučký kůň úpěl ďábelské ódy u řeky.
Hızlı kahverengi tilki tembel köpeğin üzerinden atlar; İstanbul'da yağmur yağıyor.
Tôi đã đọc quyển sách này nhiều lần và vẫn thấy nó thật thú vị.
Съешь же ещё этих мягких французских булок, да выпей чаю, сказала бабушка.
Η γρήγορη καφετιά αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.
الثعلب البني السريع يقفز فوق الكلب الكسول في الصباح الباكر.
השועל החום המהיר קופץ מעל הכלב העצלן בבוקר.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर से कूदती है और नदी पार करती है।
দ্রুত বাদামী শিয়াল অলস কুকুরের উপর লাফ দেয়।
வேகமான பழுப்பு நரி சோம்பேறி நாயின் மேல் குதிக்கிறது.
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ
敏捷的棕色狐狸跳过了懒狗，然后我们去河边读书。今天的天气很好。
素早い茶色の狐がのろまな犬を飛び越えた。カタカナとひらがなを読む。
빠른 갈색 여우가 게으른 개를 뛰어넘는다. 오늘은 날씨가 좋습니다.
სწრაფი ყავისფერი მელა ზარმაც ძაღლს ახტება.
Արագ շագանակագույն աղվեսը ցատկում է ծույլ շան վրայով։
ፈጣኑ ቡናማ ቀበሮ በሰነፉ ውሻ ላይ ይዘላል።
int main(int argc, char** argv) { return argc > 1 ? 0 : printf("%d\\n", 42); }
for (size_t i = 0; i < tokens.size(); ++i) { total += tokens[i].length(); }
    def encode(self, text: str) -> list[int]:\n        return [self.vocab[t] for t in text]
SELECT name, count(*) FROM users WHERE id >= 1000 GROUP BY name;   -- 3.14159, 2026-11-22
""".strip().split("\n")

# First and last code point of the blocks that strings draw letters from.
SCRIPTS = [
    (0x41, 0x7A), (0xC0, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF), (0x400, 0x52F), (0x531, 0x58A),
    (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x780, 0x7B1), (0x900, 0x97F), (0x980, 0x9FE),
    (0xA01, 0xA76), (0xA81, 0xAFF), (0xB01, 0xB77), (0xB82, 0xBFA), (0xC00, 0xC7F), (0xC80, 0xCF2),
    (0xD00, 0xD7F), (0xD81, 0xDF4), (0xE01, 0xE5B), (0xE81, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FD), (0x1401, 0x167F),
    (0x1681, 0x169C), (0x16A0, 0x16F8), (0x1780, 0x17F9), (0x1800, 0x18AA), (0x1E00, 0x1EFF),
    (0x1F00, 0x1FFE), (0x2C00, 0x2DFF), (0x3041, 0x30FF), (0x3105, 0x312F), (0x3131, 0x318E),
    (0x3400, 0x34FF), (0x4E00, 0x9FFF), (0xA000, 0xA48C), (0xA4D0, 0xA7FF), (0xAC00, 0xD7A3),
    (0xF900, 0xFAD9), (0xFB00, 0xFDFF), (0xFE70, 0xFEFC), (0xFF01, 0xFFEE), (0x10000, 0x100FA),
    (0x10330, 0x1034A), (0x10400, 0x1049D), (0x12000, 0x12399), (0x13000, 0x1342E),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E959), (0x20000, 0x2A6DD), (0x2F800, 0x2FA1D),
]
SPACES = (
    "\t\n\v\f\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
EMOJI = [
    "😀", "🎉", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🏴‍☠️", "👨🏿‍🚀", "❤️‍🔥", "🇩🇪", "🇯🇵🇧🇷", "1️⃣", "#️⃣", "☺", "☺️",
    "🧑🏻‍❤️‍💋‍🧑🏾", "🤷‍♀️", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "🫠", "🪲",
    "✈️", "⌚", "♟︎", "👁️‍🗨️", "\u200d", "\ufe0f", "🏽",
]
CONTRACTIONS = [
    "'s", "'S", "'t", "'re", "'RE", "'Ve", "'m", "'ll", "'lL", "'d", "'D", "'\u017f", "'x", "''s", "\u2019s",
    "'", "'r", "'l", "s'", "'\u212a", "'LLama", "'sa", "'tis", "don't", "IT'S", "we'Re",
]
PIECES = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|end_of_text|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_end|", "|im_end|>", "<|IM_END|>",
    "<|im_end |>", "<|im_<|im_end|>end|>", "<|im_start|>user\n", "<|im_end|>\n", "<think>", "</think>",
    "<THINK>", "<think", "<<think>>", "<caf\u00e9>", "<cafe\u0301>", "<cafe>", "<|eot_id|><|eot_id|>",
    "<|reserved_special_token_0|>", "<|reserved_special_token_00|>", "<|im_\u200bend|>", "<|extra|",
    "<|extra|>", "<|extra|>wide|>", "<|extra|>wide|",
]


def usable_code_points():
    """Code points for which all libraries agree; see above."""
    hf = normalizers.NFC()

    def agrees(c):
        contexts = (f"a\u0315\u0323{c}\u0323", f"a\u0315{c}", f"a\u0301{c}\u0327", c)
        return all(hf.normalize_str(s) == unicodedata.normalize("NFC", s) for s in contexts)

    every = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    return {c for c in every if unicodedata.category(c) != "Cn" and agrees(c)}


class Strings:
    """Generates test strings."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        usable = usable_code_points()
        self.all = sorted(usable)
        self.scripts = [[chr(c) for c in range(a, b + 1) if chr(c) in usable] for a, b in SCRIPTS]
        self.marks = [c for c in self.all if unicodedata.combining(c)]
        self.digits = [c for c in self.all if unicodedata.category(c)[0] == "N"]
        self.words = [w for s in SENTENCES for w in s.split(" ") if w]
        self.kinds = [
            self.words_, self.words_, self.script, self.script, self.spaces, self.emoji,
            self.marks_, self.digits_, self.controls, self.anything, self.contraction, self.special,
            self.repeat, self.punctuation, self.jamo,
        ]

    def some(self, population, low, high):
        return "".join(self.random.choices(population, k=self.random.randint(low, high)))

    def words_(self):
        start = self.random.randrange(len(self.words))
        return " ".join(self.words[start : start + self.random.randint(1, 6)])

    def script(self):
        letters = self.random.choice(self.scripts)
        return " ".join(self.some(letters, 1, 7) for _ in range(self.random.randint(1, 3)))

    def spaces(self):
        if self.random.random() < 0.5:
            return self.some(" \n\t\r", 1, 8)
        return self.some(SPACES, 1, 6)

    def emoji(self):
        return self.some(EMOJI, 1, 3)

    def marks_(self):
        base = self.random.choice("aeioucnsAEIOUCNS ñ한ก")
        marks = self.marks if self.random.random() < 0.5 else "\u0300\u0301\u0302\u0303\u0307\u0308\u0323\u0327\u0328\u0345"
        return base + self.some(marks, 1, 5)

    def digits_(self):
        return self.some("0123456789" if self.random.random() < 0.6 else self.digits, 1, 9)

    def controls(self):
        return self.some([chr(c) for c in range(0x20)] + [chr(c) for c in range(0x7F, 0xA0)], 1, 5)

    def anything(self):
        return self.some(self.all, 1, 5)

    def contraction(self):
        return self.random.choice(["", "a", "It", "é", " "]) + self.random.choice(CONTRACTIONS)

    def special(self):
        return self.random.choice(PIECES)

    def repeat(self):
        return self.random.choice(list("a 0=-.") + ["\n", "ab", "\u3042", "中", "😀", " \n"]) * self.random.randint(2, 30)

    def punctuation(self):
        return self.some("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«»“”…—、。！？", 1, 5)

    def jamo(self):
        parts = (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2)
        return "".join(chr(self.random.randint(*p)) for p in parts[: self.random.randint(1, 3)])

    def string(self):
        return "".join(self.random.choice(self.kinds)() for _ in range(self.random.randint(1, 4)))


def split(regex):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def train(regex, normalizer):
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split(regex)
    tokenizer.decoder = decoders.ByteLevel()
    shuffler = random.Random(1)
    words = [w for s in SENTENCES for w in s.split(" ")]
    corpus = SENTENCES * 3 + [" ".join(shuffler.choices(words, k=12)) for _ in range(800)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def qwen2_like():
    tokenizer = train(QWEN2_REGEX, normalizers.NFC())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|extra|>"])
    plain = [AddedToken(t, normalized=False) for t in ("<think>", "</think>", "<|extra|>wide|>")]
    tokenizer.add_tokens(plain + [AddedToken("<caf\u00e9>", normalized=True)])
    file = json.loads(tokenizer.to_str())
    # As the published files of Qwen2 spell merges; the Llama-3-like file keeps pairs.
    file["model"]["merges"] = [" ".join(m) for m in file["model"]["merges"]]
    return file


def llama3_like():
    file = json.loads(train(LLAMA3_REGEX, None).to_str())
    model = file["model"]
    model["ignore_merges"] = True
    # Words that no merge reaches: only ignore_merges finds them.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for word in (" lazy", "lazy", " Bäume", "булок", " νερό", "今天的天气很好", "......", "   ", "\n\n\n", "123"):
        spelling = byte_level.pre_tokenize_str(word)[0][0]
        model["vocab"].setdefault(spelling, len(model["vocab"]))
    tokenizer = Tokenizer.from_str(json.dumps(file))
    names = "begin_of_text end_of_text reserved_special_token_0 start_header_id end_header_id eot_id"
    tokenizer.add_special_tokens([f"<|{n}|>" for n in names.split()])
    bos = "<|begin_of_text|>"
    template = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return json.loads(tokenizer.to_str())


def packed(ids):
    return "".join(BASE64[i // 64] + BASE64[i % 64] for i in ids)


def vector(text, tokenizers):
    row = {"t": text}
    nfc = unicodedata.normalize("NFC", text)
    if nfc != text:
        row["n"] = nfc
    for key, tokenizer, expected in (("q", tokenizers[0], nfc), ("l", tokenizers[1], text)):
        results = []
        for as_text in (True, False):
            tokenizer.encode_special_tokens = as_text
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            # The last is Hugging Face's byte decoder at work on an added token outside ASCII.
            assert decoded == expected or "<caf\u00e9>" in expected, (text, decoded)
            results.append(packed(ids))
        row[key] = results[0]
        if results[1] != results[0]:
            row[key.upper()] = results[1]
    return row


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    files = {"qwen2": qwen2_like(), "llama3": llama3_like()}
    for name, file in files.items():
        folder = out / name
        folder.mkdir(exist_ok=True)
        text = json.dumps(file, ensure_ascii=False, indent=0)
        (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    tokenizers = [Tokenizer.from_str(json.dumps(file)) for file in files.values()]
    generator = Strings(20)
    texts = {"": None, **dict.fromkeys(SENTENCES), **dict.fromkeys(SPACES), **dict.fromkeys(CONTRACTIONS)}
    texts |= dict.fromkeys(PIECES)
    while len(texts) < STRINGS:
        texts[generator.string()] = None
    with open(out / "vectors.jsonl", "w", encoding="utf-8", newline="\n") as lines:
        for text in texts:
            row = json.dumps(vector(text, tokenizers), ensure_ascii=False, separators=(",", ":"))
            lines.write(row.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029") + "\n")


if __name__ == "__main__":
    main()
