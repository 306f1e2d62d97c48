import pytest
import torch

from checkpoints.state import load_state, optimizer_tensors, restore_optimizer, save_state


def groups(value):
    return {"model": {"w": torch.full((3,), float(value))}}


def test_newest_state_is_loaded_and_old_ones_go(tmp_path):
    for step in (1, 2, 3):
        save_state(tmp_path, step, groups(step), {"best": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000002", "step_00000003"]
    step, loaded, facts = load_state(tmp_path)
    assert (step, facts) == (3, {"best": 3})
    assert loaded["model"]["w"].tolist() == [3, 3, 3]


def test_no_state(tmp_path):
    assert load_state(tmp_path / "state") is None


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("victim", ["model.safetensors", "state.json"])
def test_damaged_state_falls_back_with_a_warning(tmp_path, victim, cut):
    save_state(tmp_path, 1, groups(1), {})
    newest = save_state(tmp_path, 2, groups(2), {})
    content = bytearray((newest / victim).read_bytes())
    content[-5] ^= 1
    (newest / victim).write_bytes(content[: len(content) // 2] if cut else content)
    with pytest.warns(UserWarning, match="damaged"):
        step, loaded, _ = load_state(tmp_path)
    assert step == 1
    assert loaded["model"]["w"].tolist() == [1, 1, 1]


def test_a_kill_inside_a_write_leaves_the_state_before(tmp_path):
    save_state(tmp_path, 1, groups(1), {})
    half = tmp_path / ".step_00000002.tmp"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert load_state(tmp_path)[0] == 1
    save_state(tmp_path, 2, groups(2), {})
    assert load_state(tmp_path)[0] == 2


def test_optimizer_goes_on_exactly():
    def train(model, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()

    def new():
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    whole, whole_optimizer = new()
    train(whole, whole_optimizer, range(6))
    part, part_optimizer = new()
    train(part, part_optimizer, range(3))
    resumed, resumed_optimizer = new()
    resumed.load_state_dict(part.state_dict())
    restore_optimizer(resumed_optimizer, optimizer_tensors(part_optimizer))
    train(resumed, resumed_optimizer, range(3, 6))
    assert torch.equal(whole.weight, resumed.weight)
