"""Questions packed into one sequence are the questions asked one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from vllm_csp.models.conversation import Turn, build_prompt
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.training.packing import NO_LABEL, Packed, Packer
from vllm_csp.training.questions import Picture
from vllm_csp.training.shape import MiniShape
from vllm_csp.training.student import Student

SHAPE = MiniShape(layers=2, vision_layers=1, word_head=(0, 1), target_heads=((1, 0),))


@pytest.fixture(scope="module")
def student(tokenizer: LisaTokenizer) -> Student:
    torch.manual_seed(0)
    return Student(SHAPE, tokenizer.vocab_size).eval()


def test_a_segment_holds_the_ids_that_the_engine_is_given(
    tokenizer: LisaTokenizer, picture: Picture
) -> None:
    packer = Packer(tokenizer)
    batch = packer.pack([picture])
    prompt = tokenizer.encode_prompt(build_prompt([Turn("user", picture.questions[0].text, True)]))
    place = prompt.index(tokenizer.image_token_id)
    assert packer.before_image + packer.after_image == [*prompt[:place], prompt[place + 1]]
    ids = batch.segments[0][batch.owner[0] == 0].tolist()
    answer = [*tokenizer.encode("It is [SEG].", add_special_tokens=False), 2]
    assert ids == prompt[place + 2 :] + answer


def test_labels_are_the_answers_one_row_ahead(tokenizer: LisaTokenizer, picture: Picture) -> None:
    batch = Packer(tokenizer).pack([picture])
    for number, asked in enumerate(picture.questions):
        labels = batch.labels[0][batch.owner[0] == number]
        ids = batch.segments[0][batch.owner[0] == number]
        rows = (labels != NO_LABEL).nonzero()[:, 0]
        assert labels[rows[:-1]].tolist() == ids[rows[:-1] + 1].tolist()
        answer = [*tokenizer.encode(asked.answer, add_special_tokens=False), 2]
        assert labels[rows].tolist() == answer


def test_read_out_rows_predict_seg_or_end_the_prompt(
    tokenizer: LisaTokenizer, picture: Picture
) -> None:
    batch = Packer(tokenizer).pack([picture])
    # One target: written and forced; two targets: both written; none: nothing.
    assert batch.forced.tolist() == [False, True, False, False]
    labels = batch.labels[batch.picture, batch.row]
    seg, first = tokenizer.seg_token_id, tokenizer.encode("It", add_special_tokens=False)[0]
    assert labels.tolist() == [seg, first, seg, seg]


def test_a_packed_batch_gives_the_hidden_states_of_single_questions(
    tokenizer: LisaTokenizer, picture: Picture, student: Student
) -> None:
    packer = Packer(tokenizer)
    other = replace(picture, questions=picture.questions[:1])
    batch = packer.pack([other, picture])
    together = queries(student, packer, batch)
    alone = [
        queries(student, packer, packer.pack([replace(one, questions=(asked,))]))
        for one in (other, picture)
        for asked in one.questions
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


@torch.inference_mode()
def queries(student: Student, packer: Packer, batch: Packed) -> torch.Tensor:
    return student(batch, packer.before_image, packer.after_image).queries
