"""Networks in other libraries' conventions: a mixture whose score is written out here, wrapped in each, samples like its own denoiser."""

import math

import numpy as np
import pytest
import torch

import sdekit as sk
from sdekit import tables
from sdekit.torch import adapters, exports, states
from sdekit.torch.conventions import library, table_of

pytestmark = pytest.mark.images
SHAPE = (1, 2, 2)
WEIGHTS, SPREADS = (0.3, 0.7), (0.4, 0.2)
MEANS = np.array([[[[1.0, -0.5], [0.3, 0.8]]], [[[-0.7, 0.2], [0.0, -1.0]]]])
LAW = sk.law.Mixture(WEIGHTS, MEANS, [s**2 for s in SPREADS])
GRID = sk.grids.karras(6, 0.05, 20.0)
TABLE = tables.linear()
PSLD = sk.catalogue.psld()
BETAS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}


def score(x, a, s):
    """Gradient of the log density of ``a x0 + s n``; ``a`` and ``s`` are (batch,)."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        logs = []
        for weight, mean, spread in zip(WEIGHTS, MEANS, SPREADS, strict=True):
            variance = a**2 * spread**2 + s**2
            gap = (x - a.reshape(-1, 1, 1, 1) * torch.from_numpy(mean).to(x)).square().sum((1, 2, 3))
            logs.append(math.log(weight) - 0.5 * gap / variance - 0.5 * gap.new_tensor(math.prod(SHAPE)) * variance.log())
        return torch.autograd.grad(torch.logsumexp(torch.stack(logs), 0).sum(), x)[0]


def of(x, *values):
    return [v.to(x).reshape(-1, 1, 1, 1) for v in values]


def labelled(x, label):
    """sqrt(abar) and sqrt(1 - abar) of fractional labels, log sigma linear between."""
    sigma = np.sqrt(1.0 / np.array(TABLE.abar) - 1.0)
    level = torch.from_numpy(np.exp(np.interp(label.double().numpy(), np.arange(1000), np.log(sigma))))
    a = (1.0 + level**2) ** -0.5
    return a, level * a


def network(kind):
    def model(x, label):
        a, s = labelled(x, label)
        own, (aa, ss) = score(x, a, s), of(x, a, s)
        eps = -ss * own
        x0 = (x - ss * eps) / aa
        return {"eps": eps, "x0": x0, "v": aa * eps - ss * x0}[kind]

    return model


def vp_score(x, t):
    """score_sde's VP: beta from 0.1 to 20."""
    log_a = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    return score(x, log_a.exp(), (1.0 - (2.0 * log_a).exp()).sqrt())


def ve_score(x, t):
    one = torch.ones_like(t)
    return score(x, one, t)


def data(x, sigma):
    level = sigma.reshape(-1, 1, 1, 1)
    return x + level**2 * score(x, torch.ones_like(sigma), sigma)


def edm_net(x, sigma, class_labels=None):
    assert class_labels is None
    return data(x, sigma)


def velocity(x, t):
    a, s = 1.0 - t, t
    aa, ss = of(x, a, s)
    x0 = (x + ss**2 * score(x, a, s)) / aa
    return (x - aa * x0) / ss - x0


WRAPPED = {
    "diffusers eps": adapters.Diffusers(network("eps"), TABLE),
    "diffusers v": adapters.Diffusers(network("v"), TABLE, kind="v"),
    "diffusers x0": adapters.Diffusers(network("x0"), TABLE, kind="x0"),
    "k-diffusion": adapters.KDiffusion(data),
    "edm": adapters.EDM(edm_net),
    "score_sde vp": adapters.ScoreSDE(vp_score, sk.catalogue.vp()),
    "score_sde vp, 999": adapters.ScoreSDE(lambda x, t: vp_score(x, t / 999.0), sk.catalogue.vp(), scale=999.0),
    "score_sde edm": adapters.ScoreSDE(ve_score, sk.catalogue.edm()),
    "flow": adapters.Flow(velocity),
    "flow, 1000": adapters.Flow(lambda x, t: velocity(x, t / 1000.0), scale=1000.0),
    "flow, data at 1": adapters.Flow(lambda x, t: -velocity(x, 1.0 - t), data_at=1),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("process", [PSLD, sk.catalogue.edm()], ids=["psld", "edm"])
def test_samples_are_those_of_the_native_denoiser(name, process):
    native = sk.sample(process, LAW.denoiser(), method=sk.methods.exponential(2), grid=GRID, n=5)
    theirs = sk.sample(process, WRAPPED[name], method=sk.methods.exponential(2), grid=GRID, n=5, shape=SHAPE)
    assert isinstance(theirs.x, np.ndarray)
    assert np.max(np.abs(theirs.x - native.x)) < 1e-9


@pytest.mark.parametrize("name", WRAPPED)
def test_levels_of_each_sample_and_types(name):
    y = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *SHAPE)))
    levels = [0.06, 0.9, 11.0]
    together = WRAPPED[name](y, torch.tensor(levels))
    expected = torch.cat([LAW.denoiser()(y[i : i + 1], level) for i, level in enumerate(levels)])
    assert torch.allclose(together, expected, rtol=0.0, atol=1e-6)  # the levels came in float32
    assert torch.allclose(WRAPPED[name](y, 0.9)[1], expected[1], rtol=0.0, atol=1e-9)
    assert WRAPPED[name](y.numpy().astype(np.float32), 0.9).dtype == np.float32
    with pytest.raises(sk.BadInput, match=r"sigma has shape \(2,\)"):
        WRAPPED[name](y, torch.ones(2))


class Square(torch.nn.Module):
    """A network with parameters of a low precision, which must not lower that of the state."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, x, label, **condition):
        self.seen.append((x.dtype, label.dtype, label.tolist(), {k: tuple(v.shape) for k, v in condition.items()}))
        return (self.gain * x,)


def test_what_the_network_is_given():
    net = Square()
    denoise = adapters.Diffusers(net, TABLE, shape=SHAPE).given(extra=torch.zeros(1, 7, 5))
    y = torch.ones(2, *SHAPE, dtype=torch.float64)
    middle = float(np.sqrt(TABLE.sigma[499] * TABLE.sigma[500]))
    made = denoise(y, middle)
    assert made.dtype == torch.float64
    assert torch.allclose(made, y - middle * y / math.sqrt(1.0 + middle**2), atol=1e-6)
    assert net.seen[-1][:2] == (torch.float32, torch.float32)
    assert net.seen[-1][2] == pytest.approx([499.5, 499.5])
    assert net.seen[-1][3] == {"extra": (2, 7, 5)}
    denoise(y, float(TABLE.sigma[3]))
    assert net.seen[-1][1:3] == (torch.int64, [3, 3])
    near = adapters.Diffusers(net, TABLE, rounding="nearest")
    for sigma, label in ((middle * 1.0001, 500), (1e-4, 0), (1e6, 999)):
        near(y, sigma)
        assert net.seen[-1][1:3] == (torch.int64, [label, label])
    with pytest.raises(sk.BadInput, match=r"sigma = 0.002 lies outside the levels \[0.0100005, 157.40[0-9]+\].*karras\(18, 0.01, 157.4\)"):
        denoise(y, 0.002)
    with pytest.raises(sk.BadInput, match=r"y has shape \(2, 3\)"):
        denoise(torch.zeros(2, 3), 1.0)
    assert (denoise.dtype, denoise.device.type, denoise.shape) == (torch.float32, "cpu", SHAPE)
    assert y.requires_grad is False
    y.requires_grad_(True)
    assert denoise(y, 1.0).requires_grad


def scheduler(name="DDIMScheduler", **options):
    return getattr(library(), name)(**{**BETAS, "clip_sample": False, **options})


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet():
    return seeded(
        lambda: library().UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"), attention_head_dim=4,
        )
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_is_that_of_diffusers(unet, prediction):
    ddim = scheduler(prediction_type=prediction)
    x = start = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 1, 8, 8))).float()
    ddim.set_timesteps(10)
    for t in ddim.timesteps:
        x = ddim.step(unet(x, t).sample, t, x).prev_sample
    denoise = adapters.Diffusers(unet, ddim)
    table = denoise.table
    labels = table.labels(10)
    assert denoise.shape == (1, 8, 8)
    run = sk.sample(
        table.process, denoise, method=sk.methods.ddim(), grid=table.grid(labels, data=True), start=(start[None], float(table.time(labels[0])))
    )
    assert run.x.dtype == torch.float32
    assert (run.x - x).abs().max() < 1e-5 * x.abs().max()


def test_learned_variance_and_labels_of_classes():
    sizes = {"num_attention_heads": 2, "attention_head_dim": 4, "in_channels": 2, "out_channels": 4, "num_layers": 1, "sample_size": 4}
    dit = seeded(lambda: library().DiTTransformer2DModel(**sizes, patch_size=2, num_embeds_ada_norm=5, norm_num_groups=2))
    torch.nn.init.normal_(dit.proj_out_2.weight)
    denoise = adapters.Diffusers(dit, scheduler()).given(class_labels=torch.tensor([3]))
    y, sigma = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)), float(denoise.table.sigma[200])
    eps = dit(y / math.sqrt(1.0 + sigma**2), torch.tensor([200, 200]), class_labels=torch.tensor([3, 3])).sample
    assert eps.shape[1] == 4
    assert torch.allclose(denoise(y, sigma), y - sigma * eps[:, :2], atol=1e-5)
    assert not torch.allclose(denoise(y, sigma), y - sigma * eps[:, 2:], atol=1e-2)
    odd = adapters.Diffusers(lambda x, label: x[:, [0, 1, 0]], TABLE)
    with pytest.raises(sk.BadInput, match="answers with 3 channels to data of 2"):
        odd(y, 1.0)


def test_schedules_are_those_of_diffusers():
    for options in ({}, {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}, {"beta_schedule": "squaredcos_cap_v2"}):
        own = scheduler(**options)
        assert table_of(own) == table_of(dict(own.config))
        assert table_of(own).abar == tuple(own.alphas_cumprod.double().tolist())
    dark = scheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    assert float(dark.alphas_cumprod[-1]) == 0.0
    assert table_of(dark).abar[:-1] == tuple(dark.alphas_cumprod.double().tolist()[:-1])
    assert table_of(dark).abar[-1] == 0.5 * table_of(dark).abar[-2] < 2.0**-24
    short = scheduler(rescale_betas_zero_snr=True, num_train_timesteps=20)
    assert table_of(short).abar[-1] == 2.0**-24 < 0.5 * table_of(short).abar[-2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}, "EulerDiscreteScheduler names no betas.*Flow"),
        ({**BETAS, "num_train_timesteps": 10**12}, "num_train_timesteps = 1000000000000 is more than 100000"),
        ({"beta_schedule": "curved"}, "diffusers refuses the schedule"),
        ({"trained_betas": [0.1, "x"]}, "diffusers refuses the schedule"),
        ({"trained_betas": [0.1, 1.5]}, "abar must hold at least two values that decrease"),
        ({**BETAS, "prediction_type": "noise"}, "unknown prediction_type 'noise'"),
        ("linear", "scheduler = 'linear' must be a scheduler of diffusers"),
    ],
)
def test_broken_schedules_are_named(config, message):
    with pytest.raises(sk.BadInput, match=message):
        adapters.Diffusers(lambda x, label: x, config)


def test_arguments_are_checked():
    for make, message in (
        (lambda: adapters.KDiffusion("net"), "must be callable"),
        (lambda: adapters.Diffusers(len, TABLE, kind="epsilon"), "unknown kind of prediction 'epsilon'"),
        (lambda: adapters.Diffusers(len, TABLE, rounding="up"), "unknown rounding 'up'"),
        (lambda: adapters.ScoreSDE(len, PSLD), "has 2 blocks.*states.psld"),
        (lambda: adapters.Flow(len, data_at=2), "data_at = 2 must be 0 or 1"),
        (lambda: states.psld(len, PSLD, "score"), "unknown mode 'score'"),
        (lambda: states.psld(len, PSLD, predicts="noise"), "unknown prediction 'noise'"),
        (lambda: exports.to_score_sde(len, PSLD), "has 2 blocks; use to_state_score"),
    ):
        with pytest.raises(sk.BadInput, match=message):
            make()


# ------------------------------------------------------------------------------------------------------------------ whole states


GAUSS = (0.3, 0.5)  # mean and variance of each element


def state_moments(t):
    """Mean (2,) and covariance (2, 2) of the state for Gaussian data; the kernel's moments by quadrature of the moment equations."""
    kernel = PSLD.kernel(t)
    return kernel.psi * GAUSS[0], kernel.cov + GAUSS[1] * np.outer(kernel.psi, kernel.psi)


def gaussian_state_score(z, t):
    """z (n, 2 C, ...) with the blocks in the channels."""
    mean, cov = state_moments(float(t[0]))
    blocks = torch.stack(z.chunk(2, dim=1))
    gap = blocks - torch.from_numpy(mean).reshape(2, 1, 1, 1, 1)
    return -torch.tensordot(torch.from_numpy(np.linalg.inv(cov)), gap, dims=1)


@pytest.mark.parametrize("mode", ["both", "score_x", "score_m"])
@pytest.mark.parametrize("predicts", ["eps", "score"])
def test_networks_of_the_state(mode, predicts):
    def net(z, t):
        own, S = gaussian_state_score(z, t), PSLD.kernel(float(t[0])).cov
        if predicts == "eps":
            upper = np.linalg.cholesky(S[::-1, ::-1])[::-1, ::-1]  # S = U U', eps_x is that of the data block given the other
            factor = upper if mode == "score_x" else np.linalg.cholesky(S)
            own = -torch.tensordot(torch.from_numpy(factor.T.copy()), own, dims=1)
        return torch.cat(list(own), 1) if mode == "both" else own[0 if mode == "score_x" else 1]

    model = states.psld(net, PSLD, mode, predicts=predicts, shape=SHAPE)
    law = sk.law.Gaussian(np.full(SHAPE, GAUSS[0]), GAUSS[1])
    wanted = {"grid": GRID, "n": 4, "device": "cpu", "dtype": torch.float64}
    for method in (sk.methods.exponential(2), sk.methods.euler(noise=1.0)):
        native = sk.sample(PSLD, law.denoiser(), method=method, **wanted)
        assert (sk.sample(PSLD, model, method=method, **wanted).state - native.state).abs().max() < 1e-8
    exported = exports.to_state_score(law.denoiser(), PSLD)
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *SHAPE)))
    expected = gaussian_state_score(torch.cat(list(z), 1), torch.tensor([0.2]))
    assert torch.allclose(exported(z, 0.2), expected, atol=1e-10)
    assert torch.allclose(model(z, 0.2), expected, atol=1e-10)


def test_networks_of_the_state_with_other_channels():
    model = states.psld(lambda z, t: z, PSLD, "score_m")
    with pytest.raises(sk.BadInput, match="answers with 2 channels; mode 'score_m' on 1 channels of data needs 1"):
        model(torch.zeros(2, 3, *SHAPE), 0.2)


# -------------------------------------------------------------------------------------------------------------- the other way


def test_exports_are_the_conventions():
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((3, *SHAPE)))
    denoise = LAW.denoiser()
    label, t = torch.tensor([3.0, 250.5, 900.0]), torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    for kind in ("eps", "v", "x0"):
        ours = exports.to_diffusers(denoise, TABLE, kind)
        assert torch.allclose(ours(x, label).sample, network(kind)(x, label), rtol=1e-9, atol=1e-9)
        assert torch.allclose(ours(x, torch.tensor(250)).sample, network(kind)(x, torch.tensor([250.0])), rtol=1e-9, atol=1e-9)
    assert torch.allclose(exports.to_score_sde(denoise, sk.catalogue.vp())(x, t), vp_score(x, t), rtol=1e-9)
    assert torch.allclose(
        exports.to_score_sde(denoise, sk.catalogue.vp())(x, 0.4), vp_score(x, torch.full((3,), 0.4, dtype=torch.float64)), rtol=1e-9
    )
    assert torch.allclose(exports.to_flow(denoise)(x, t), velocity(x, t), rtol=1e-9)
    assert torch.allclose(exports.to_flow(denoise, 1, 1000.0)(x, 1000.0 * t), -velocity(x, 1.0 - t), rtol=1e-9)
    assert torch.allclose(exports.to_k_diffusion(denoise)(x, t, extra=1), data(x, t), rtol=1e-9, atol=1e-12)
    net = exports.to_edm(denoise)
    assert (net.img_channels, net.img_resolution, net.label_dim, float(net.round_sigma(0.3))) == (1, 2, 0, pytest.approx(0.3))
    assert torch.allclose(net(x, t.reshape(-1, 1, 1, 1)), data(x, t), rtol=1e-9, atol=1e-12)
    assert torch.allclose(
        net(x, torch.tensor(0.5, dtype=torch.float64), None), data(x, torch.full((3,), 0.5, dtype=torch.float64)), rtol=1e-9, atol=1e-12
    )
    with pytest.raises(sk.BadInput, match="takes no class_labels"):
        net(x, t, torch.ones(3))


def test_an_export_runs_in_the_loop_of_diffusers():
    """Their DDIM on our denoiser is our DDIM on our denoiser."""
    ddim = scheduler(timestep_spacing="trailing", prediction_type="v_prediction")
    table = table_of(ddim)
    model = exports.to_diffusers(LAW.denoiser(), ddim)
    x = start = torch.from_numpy(np.random.default_rng(1).standard_normal((2, *SHAPE)))
    ddim.set_timesteps(10)
    for t in ddim.timesteps:
        x = ddim.step(model(x, t).sample, t, x).prev_sample
    labels = table.labels(10, "trailing")
    grid = table.grid(labels, data=True)
    ours = sk.sample(table.process, LAW.denoiser(), method=sk.methods.ddim(), grid=grid, start=(start[None], float(table.time(labels[0]))))
    assert (ours.x - x).abs().max() < 1e-5
