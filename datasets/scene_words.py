"""The 64 words of the scenes, as a tokenizer and a LLaVA processor of the transformers library.

Prompts are those of LLaVA 1.5 in small letters: `user : <image> is there a dog in the image ? assistant :`. The
processor puts as many `<image>` into the prompt as the image has patches, and makes any image 96 x 96 px.
"""

from __future__ import annotations

from typing import Any

from .scenes import CLASSES, CONTEXTS, IMAGE_PX

__all__ = ["CHAT_TEMPLATE", "PATCH_PX", "SPECIAL", "WORDS", "build_processor", "build_tokenizer", "word_ids"]

#: Side of a patch of the vision tower.
PATCH_PX = 16
#: Tokens that are not words.
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<image>")
_COMMON = (
    *("user", "assistant", ":", ".", "?", ","),
    *("the", "image", "shows", "a", "in", "next", "to", "there", "is", "also", "yes", "no", "describe", "detail"),
    *("please", "this", "help", "me", "answer", "question", "with", "one", "word"),
)
#: Token -> its number: 5 that are not words, 29 words for everything, 4 places, 26 words for 24 kinds of things.
WORDS: dict[str, int] = {
    word: number
    for number, word in enumerate((*SPECIAL, *_COMMON, *CONTEXTS, *(word for name in CLASSES for word in name.split())))
}
#: As LLaVA's, without capitals. The tokenizer adds <bos>.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' : ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image> ' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ ' <eos> ' }}{% else %}{{ ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant :' }}{% endif %}"
)


def word_ids(text: str) -> list[int]:
    """The numbers of words with blanks between them, as the captions of the scenes have; what the tokenizer gives too.

    Raises:
        ValueError: there is no such word.

    Example:
        >>> word_ids("<bos> a dog .")
        [1, 14, 52, 8]
    """
    try:
        return [WORDS[word] for word in text.split()]
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is not among the {len(WORDS)} words of the scenes") from error


def build_tokenizer() -> Any:
    """The tokenizer: one number a word, capitals and "an" are made small, unknown words are <unk>, <bos> is put first.

    Returns:
        A `transformers.PreTrainedTokenizerFast`; batches are padded on the left.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> tokenizer.decode(tokenizer("A dog, next to a unicorn.")["input_ids"])
        '<bos> a dog, next to a <unk>.'
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\ban\b"), "a")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # blanks, and every mark is a token
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # no blank before a full stop
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", WORDS["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
    )


def build_processor() -> Any:
    """The processor of images and prompts.

    Returns:
        A `transformers.LlavaProcessor`; images of any size and mode become 96 x 96 px, squashed, not cropped.

    Example:
        >>> from PIL import Image
        >>> processor = build_processor()
        >>> inputs = processor(images=Image.new("L", (300, 50)), text="user : <image> describe", return_tensors="np")
        >>> inputs["pixel_values"].shape, (inputs["input_ids"] == WORDS["<image>"]).sum()
        ((1, 3, 96, 96), np.int64(36))
    """
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    square = {"height": IMAGE_PX, "width": IMAGE_PX}
    images = CLIPImageProcessorPil(
        size=square,
        crop_size=square,
        do_center_crop=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        images,
        build_tokenizer(),
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
