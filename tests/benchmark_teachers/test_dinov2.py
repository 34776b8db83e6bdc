"""The DINOv2 of the benchmarks is the backbone of the graph that its weights come from."""

import pytest
import torch
import torch.nn.functional as F

from scrd.model import build_model
from scrd.model.teacher import build_teacher
from scrd.model.weights import TeacherError

onnx = pytest.importorskip("onnx", reason="the weights are read with onnx")
SIDE = 592  # 37 × 37 patches, as the position embedding has: nothing resamples it


@pytest.fixture
def weights(installed):
    from scrd_dinov2 import weights_file

    try:
        return weights_file()
    except FileNotFoundError as e:
        pytest.skip(f"the weights of DINOv2 are not here: {e}")


def image():
    torch.manual_seed(0)
    return F.interpolate(torch.rand(1, 3, 37, 37), (SIDE, SIDE), mode="bicubic").clamp(0, 1)


def maps_of_the_graph(path):
    """What the blocks 3, 6 and 9 of the original graph give, resampled as the teacher does."""
    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load(path)
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = 37 * 14
    names = [f"/backbone/encoder/layer.{k}/Add_1_output_0" for k in (2, 5, 8)]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
    patched = F.interpolate((image() - mean) / std, (37 * 14, 37 * 14), mode="bilinear")
    tokens = session.run(names, {"input_image": patched.numpy()})
    grids = [torch.from_numpy(t)[:, 1:].mT.reshape(1, 384, 37, 37) for t in tokens]
    sides = [SIDE // s for s in (4, 8, 16)]
    return [F.interpolate(g, (n, n), mode="bilinear") for g, n in zip(grids, sides, strict=True)]


def test_its_maps_are_those_of_the_original_graph(weights):
    maps = build_teacher("dinov2_vits14")(image())
    for u, v in zip(maps, maps_of_the_graph(weights), strict=True):
        assert u.shape == v.shape
        assert (u - v).norm() < 1e-4 * v.norm()


def test_its_maps_have_the_figures_of_onnxruntime(weights):
    maps = build_teacher("dinov2_vits14")(image())
    middles = [u[0, :3, u.shape[2] // 2, u.shape[3] // 2].tolist() for u in maps]
    expected = [
        [0.02979, 0.05303, -0.00611],
        [-0.03090, 0.17430, 0.04729],
        [-0.35541, 0.43909, -0.01838],
    ]
    assert middles == [pytest.approx(values, abs=1e-4) for values in expected]
    assert [float(u.std()) for u in maps] == pytest.approx([0.03842, 0.06630, 0.20045], abs=1e-5)


def test_student_is_that_of_a_vision_transformer(weights, student_shapes):
    shapes, of_random = student_shapes
    assert not build_model("dinov2_vits14", image_size=64).student.rectified
    assert shapes("dinov2_vits14") == of_random("vit_small_patch14_dinov2", False)


def test_missing_weights_are_named_with_the_variable(installed, monkeypatch):
    monkeypatch.setenv("SCRD_DINOV2_ONNX", "/nowhere/w.onnx")
    with pytest.raises(TeacherError, match=r"/nowhere/w\.onnx: no such file; .* SCRD_DINOV2_ONNX"):
        build_teacher("dinov2_vits14")
