# SPDX-License-Identifier: Apache-2.0
"""Describes the module of a training job for `crossdock convert ... --target FILE`.

    python -m crossdock_manifest describe MODEL_OR_CONFIG -o target.pb  # a Hugging Face folder, config.json or Hub name

or in the job's own script, so that names, order and optimizer groups are exactly the job's:

    from crossdock_manifest import describe
    Path("target.pb").write_bytes(describe(model, optimizer))

The file is a crossdock.manifest.v1.Manifest (manifest.proto) without bytes: the tensors of model.state_dict() in its
order, with shapes, roles, what is trained, which names are one parameter, and the optimizer's groups. No weights are
needed: the model may be on the meta device.
"""
from .wire import message, number, numbers, text, value, varint

PARAMETER, BUFFER = 1, 2  # Role
TRAINABLE, FROZEN = 1, 2  # Training
DTYPES = {"bool": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "uint32": 6, "int32": 7, "uint64": 8, "int64": 9,
          "float16": 10, "bfloat16": 11, "float32": 12, "float64": 13, "float8_e4m3fn": 14, "float8_e5m2": 15,
          "float8_e4m3fnuz": 16, "float8_e5m2fnuz": 17, "float8_e8m0fnu": 18, 
          "complex32": 19, "complex64": 20, "complex128": 21}


def describe(model, optimizer=None, groups=None):
    """The bytes of the description of an nn.Module.

    optimizer: a torch optimizer over the model's parameters; its groups and hyper-parameters are described too.
    groups: the same without an optimizer: [(names, {hyper-parameter: value}), ...].
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first_name = {}
    for name, parameter in parameters.items():
        first_name.setdefault(id(parameter), name)
    # The state dict has the parameters in the order of named_parameters(), and the buffers between them.
    tensors = {name: value for name, value in model.state_dict(keep_vars=True).items() if hasattr(value, "dtype")}
    index = {name: i for i, name in enumerate(tensors)}
    if unseen := [name for name in parameters if name not in index]:
        raise ValueError(f"expected every parameter in the state dict, found {unseen[:3]} missing")

    out, aliases = number(1, 1), {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise ValueError(f"expected a type that crossdock knows, found {dtype} of {name}")
        shape = getattr(tensor, "ds_shape", tensor.shape)  # under deepspeed.zero.Init the tensor itself is empty
        body = text(1, name) + number(2, DTYPES[dtype]) + numbers(3, list(shape))
        body += number(8, PARAMETER if name in parameters else BUFFER)
        if name in parameters:
            body += number(9, TRAINABLE if parameters[name].requires_grad else FROZEN)
            if (kept := first_name[id(parameters[name])]) != name:
                aliases.setdefault(kept, []).append(name)
        out += message(3, body)
    for kept, others in aliases.items():
        out += message(4, numbers(1, [index[kept], *(index[other] for other in others)]))

    if optimizer is not None:
        groups = []
        for group in optimizer.param_groups:
            hyper = {k: v for k, v in group.items() if k != "params"}
            if strangers := [tuple(p.shape) for p in group["params"] if id(p) not in first_name]:
                raise ValueError("expected an optimizer over the model's own parameters, found another of shape "
                                 f"{strangers[0]}")
            groups.append(([first_name[id(p)] for p in group["params"]], hyper))
    training = b""
    if optimizer is not None:
        training += text(2, f"{type(optimizer).__module__}.{type(optimizer).__qualname__}")
    for group_names, hyper in groups or []:
        body = numbers(1, [index[name] for name in group_names])
        for key, v in hyper.items():
            body += message(2, text(1, key) + message(2, value(v)))
        training += message(3, body)
    return out + (message(5, training) if training else b"") + message(7, text(1, "crossdock_manifest"))


def hf_trainer_groups(model, weight_decay=None):
    """The two groups that Hugging Face's Trainer makes: biases and norms get no weight decay.

    weight_decay: of the others; None leaves it to crossdock's --weight-decay.
    """
    from transformers import Trainer
    decay = set(Trainer.get_decay_parameter_names(None, model))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return [([n for n in trained if n in decay], {} if weight_decay is None else {"weight_decay": weight_decay}),
            ([n for n in trained if n not in decay], {"weight_decay": 0.0})]


def build(source):
    """The model of a Hugging Face folder, config.json or Hub name, on the meta device."""
    import torch
    import transformers
    config = transformers.AutoConfig.from_pretrained(source)
    name = (config.architectures or [None])[0]
    with torch.device("meta"):
        model = getattr(transformers, name)(config) if name else transformers.AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return model
