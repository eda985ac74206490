"""The adapters measure what the same loop in plain PyTorch does, and leave the training alone."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from mining import InputError, Monitor

#: What is the same whenever it is measured, unlike the seconds.
COLUMNS = ["epoch", "loss", "lambda_max", "trace", "gradient_norm", "stability", "lr"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(num=60):
    inputs = torch.randn(num, 6, generator=generator())
    return TensorDataset(inputs, torch.arange(num) * 3 // num)


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning itself, that there are few workers
        yield pytest.importorskip("lightning.pytorch")


def fit(lightning, callbacks, module=None, loader=None, **options):
    """Train for three epochs with Lightning; return the weights that it leaves."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.drop = network(), nn.Dropout(0.1)

        def forward(self, inputs):
            return self.drop(self.net(inputs))

        def training_step(self, batch, number):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [schedule]

    module = module or Module()
    loader = loader or DataLoader(examples(), 16, shuffle=True)
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=callbacks, **options,
    )  # fmt: skip
    trainer.fit(module, loader)
    return [*module.state_dict().values(), torch.rand(3)]


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_lightning_trains_the_same_and_has_its_table(lightning, per, tmp_path):
    from mining.monitoring.lightning import LightningMonitor

    path = tmp_path / "curvature.csv"
    callback = LightningMonitor(
        nn.CrossEntropyLoss(), every=1, num_examples=16, probes=2, per=per, path=path
    )
    with pytest.raises(InputError, match="before the first epoch"):
        _ = callback.monitor
    options = {"accumulate_grad_batches": 2}
    assert equal(fit(lightning, [], **options), fit(lightning, [callback], **options))
    table = callback.monitor.table
    assert list(table.epoch) == ([1, 2, 3] if per == "epoch" else [1, 2, 3, 4, 5, 6])
    assert table.lambda_max.notna().all()
    assert path.exists()
    if per == "epoch":  # the rate of the next epoch
        assert list(table.lr) == pytest.approx([0.01, 0.005, 0.0025])


def test_lightning_measures_what_a_plain_loop_does(lightning):
    from mining.monitoring.lightning import LightningMonitor

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, inputs):
            return self.net(inputs)

        def training_step(self, batch, number):
            return F.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    options = {"every": 1, "num_examples": 16, "probes": 3}
    callback = LightningMonitor(nn.CrossEntropyLoss(), **options)
    loader = DataLoader(examples(), 16)
    fit(lightning, [callback], Module(), loader)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    monitor = Monitor(model, nn.CrossEntropyLoss(), loader, **options)
    for epoch in range(3):
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        monitor.step(epoch + 1, optimizer)
    assert callback.monitor.table[COLUMNS].equals(monitor.table[COLUMNS])


def test_lightning_with_several_loaders_or_optimizers_is_refused(lightning):
    from mining.monitoring.lightning import LightningMonitor

    class Module(lightning.LightningModule):
        def __init__(self, num):
            super().__init__()
            self.net, self.num, self.automatic_optimization = network(), num, num == 1

        def training_step(self, batch, number):
            batch = batch["a"] if isinstance(batch, dict) else batch
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.num)]

    loader = DataLoader(examples(), 16)
    callback = LightningMonitor(nn.CrossEntropyLoss())
    with pytest.raises(InputError, match="one optimizer in one process, got 2 in 1"):
        fit(lightning, [callback], Module(2), loader)
    with pytest.raises(InputError, match="must have one DataLoader, got dict"):
        fit(lightning, [callback], Module(1), {"a": loader})
    with pytest.raises(InputError, match="per must be epoch or step, got 'batch'"):
        LightningMonitor(nn.CrossEntropyLoss(), per="batch")


class Texts(torch.utils.data.Dataset):
    """Sequences of tokens with the class that their first token gives, of mapping type."""

    def __init__(self, num=40):
        self.tokens = torch.randint(2, 50, (num, 7), generator=generator())

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        tokens = self.tokens[index]
        return {"input_ids": tokens, "labels": int(tokens[0] % 2)}


def bert(transformers):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=2, max_position_embeddings=8,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def train(transformers, callbacks, folder, **options):
    """Train for two epochs with the Trainer; return the weights that it leaves, and the model."""
    pytest.importorskip("accelerate")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=8, use_cpu=True,
        report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        learning_rate=1e-3, **options,
    )  # fmt: skip
    model = bert(transformers)
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=Texts(), callbacks=callbacks
    )
    trainer.train()
    left = [*copy.deepcopy(model.state_dict()).values(), torch.rand(3)]
    return left, model


def test_the_trainer_trains_the_same_and_has_its_table(tmp_path):
    transformers = pytest.importorskip("transformers")
    from mining.monitoring.hugging_face import TrainerMonitor

    callback = TrainerMonitor(every=2, num_examples=16, probes=2, per="step")
    options = {"gradient_accumulation_steps": 2}
    plain, _ = train(transformers, [], tmp_path, **options)
    watched, _ = train(transformers, [callback], tmp_path, **options)
    assert equal(plain, watched)
    table = callback.monitor.table
    assert list(table.epoch) == [1, 3, 5]
    assert table[["lambda_max", "stability", "critical_sharpness"]].notna().all(axis=None)


def test_the_trainer_measures_what_a_monitor_does_by_itself(tmp_path):
    transformers = pytest.importorskip("transformers")
    from mining.monitoring.hugging_face import TrainerMonitor

    batches = [
        {"input_ids": tokens, "labels": tokens[:, 0] % 2} for tokens in Texts().tokens.split(10)
    ]
    options = {"every": 1, "num_examples": 20, "probes": 3, "batches": batches}
    callback = TrainerMonitor(**options)
    _, model = train(transformers, [callback], tmp_path, lr_scheduler_type="constant")
    table = callback.monitor.table
    assert list(table.epoch) == [1, 2]
    assert list(table.lr) == [1e-3, 1e-3]
    alone = Monitor(model, objective=lambda m, b: m(**b).loss, **options)
    row = alone.step(2, torch.optim.AdamW(model.parameters()))
    for column in ("loss", "trace", "gradient_norm"):
        assert table[column].iloc[-1] == row[column]
    # Found from another first vector, to a residual of 0.5 %.
    assert table.lambda_max.iloc[-1] == pytest.approx(row["lambda_max"], rel=0.005)
