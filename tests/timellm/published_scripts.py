"""The flags of Time-LLM's nine published scripts, as they are printed, with their variables filled in.

Facts of https://github.com/KimMeen/Time-LLM (scripts/). Every script starts each line with
`accelerate launch --multi_gpu --mixed_precision bf16 --num_processes 8 --main_process_port 00097`.
"""

_TASK = "--task_name long_term_forecast --is_training 1"
_LONG = "--features M --seq_len 512 --label_len {label} --pred_len {pred}"


def _ett(name: str, pred: int, rest: str) -> str:
    return (
        f"{_TASK} --root_path ./dataset/ETT-small/ --data_path {name}.csv --model_id {name}_512_{pred} --model TimeLLM "
        f"--data {name} {_LONG.format(label=48, pred=pred)} --factor 3 --enc_in 7 --dec_in 7 --c_out 7 --des Exp "
        f"--itr 1 {rest} --llm_layers 32 --model_comment TimeLLM-{name}"
    )


def _wide(name: str, place: str, label: int, pred: int, channels: int, rest: str) -> str:
    return (
        f"{_TASK} --root_path ./dataset/{place.split('/')[0]}/ --data_path {place.split('/')[1]} --model_id "
        f"{name}_512_{pred} --model TimeLLM --data {name} {_LONG.format(label=label, pred=pred)} --e_layers 2 "
        f"--d_layers 1 --factor 3 --enc_in {channels} --dec_in {channels} --c_out {channels} {rest} "
        f"--learning_rate 0.01 --llm_layers 32 --model_comment TimeLLM-{name}"
    )


def _rows(width: str, rests: dict[int, str]) -> dict[int, str]:
    return {pred: f"{width} {rest}" for pred, rest in rests.items()}


_WIDTH = "--d_model 32 --d_ff 128"
_ETTH1 = {
    96: "--batch_size 24 --learning_rate 0.01 --train_epochs 100",
    192: "--batch_size 24 --learning_rate 0.02 --train_epochs 100",
    336: "--batch_size 24 --lradj COS --learning_rate 0.001 --train_epochs 100",
    720: "--batch_size 24 --learning_rate 0.01 --train_epochs 100",
}
_ETTH2 = {
    96: "--batch_size 24 --learning_rate 0.01 --train_epochs 10",
    192: "--batch_size 24 --lradj TST --learning_rate 0.002 --train_epochs 10",
    336: "--batch_size 24 --lradj TST --learning_rate 0.005 --train_epochs 10",
    720: "--batch_size 24 --learning_rate 0.005 --lradj TST --train_epochs 20 --patience 10",
}
_LATER_ETTM1 = "--batch_size 24 --learning_rate 0.01 --lradj TST --learning_rate 0.001 --train_epochs 100 --patience 20"
_LATER_ETTM2 = "--batch_size 24 --learning_rate 0.01 --lradj TST --learning_rate 0.002 --train_epochs 10"
_ETTM1 = {
    96: "--batch_size 24 --lradj TST --learning_rate 0.001 --train_epochs 100",
    **dict.fromkeys((192, 336, 720), _LATER_ETTM1),
}
_ETTM2 = {
    96: "--batch_size 16 --learning_rate 0.01 --train_epochs 10",
    **dict.fromkeys((192, 336, 720), _LATER_ETTM2),
}
_ECL = ((48, 96), (48, 192), (48, 336), (48, 720))
_TRAFFIC = ((48, 96, 24), (48, 192, 24), (48, 336, 1), (720, 96, 24))
_WEATHER = ((96, 32, 10), (192, 32, 10), (336, 128, 10), (720, 128, 15))

LONG_TERM = {
    "TimeLLM_ETTh1": [_ett("ETTh1", pred, rest) for pred, rest in _rows(_WIDTH, _ETTH1).items()],
    "TimeLLM_ETTh2": [
        _ett("ETTh2", pred, rest.replace("--d_model 32", "--d_model 16") if pred == 720 else rest)
        for pred, rest in _rows(_WIDTH, _ETTH2).items()
    ],
    "TimeLLM_ETTm1": [_ett("ETTm1", pred, rest) for pred, rest in _rows(_WIDTH, _ETTM1).items()],
    "TimeLLM_ETTm2": [_ett("ETTm2", pred, rest) for pred, rest in _rows(_WIDTH, _ETTM2).items()],
    "TimeLLM_ECL": [
        _wide("ECL", "electricity/electricity.csv", label, pred, 321, "--batch_size 24 --train_epochs 10")
        for label, pred in _ECL
    ],
    "TimeLLM_Traffic": [
        _wide("Traffic", "traffic/traffic.csv", label, pred, 862, f"--batch_size {batch} --train_epochs 10")
        for label, pred, batch in _TRAFFIC
    ],
    "TimeLLM_Weather": [
        _wide("Weather", "weather/weather.csv", 48, pred, 21,
              f"--d_model 32 --d_ff {d_ff} --batch_size 24 --train_epochs {epochs}")
        for pred, d_ff, epochs in _WEATHER
    ],
}  # fmt: skip
"""Command lines of run_main.py, by script."""

M4 = [
    f"--task_name short_term_forecast --is_training 1 --root_path ./dataset/m4 --seasonal_patterns {pattern} "
    f"--model_id m4_{pattern} --model TimeLLM --data m4 --features M --enc_in 1 --dec_in 1 --c_out 1 --llm_layers 32 "
    "--d_model 8 --d_ff 32 --patch_len 1 --stride 1 --batch_size 24 --des Exp --itr 1 --learning_rate 0.001 "
    "--loss SMAPE --train_epochs 50 --model_comment TimeLLM-M4"
    for pattern in ("Monthly", "Yearly", "Weekly", "Daily", "Quarterly", "Hourly")
]
"""Command lines of TimeLLM_M4, of run_m4.py."""

_ZERO_SHOT_REST = {
    96: "--d_model 32 --d_ff 128 --batch_size 24 --learning_rate 0.01",
    192: "--d_model 32 --d_ff 128 --batch_size 24 --learning_rate 0.02",
    336: "--d_model 32 --d_ff 128 --batch_size 24 --lradj COS --learning_rate 0.001",
    720: "--d_model 32 --d_ff 128 --batch_size 24 --learning_rate 0.01",
}
ZERO_SHOT = [
    f"{_TASK} --root_path ./dataset/ETT-small/ --data_path_pretrain ETTh1.csv --data_path ETTh2.csv --model_id "
    f"ETTh1_ETTh2_512_{pred} --model TimeLLM --data_pretrain ETTh1 --data ETTh2 "
    f"{_LONG.format(label=48, pred=pred)} --factor 3 --enc_in 7 --dec_in 7 --c_out 7 --des Exp --itr 1 {rest} "
    "--llm_layers 32 --train_epochs 5 --model_comment TimeLLM-ETTh1_ETTh2"
    for pred, rest in _ZERO_SHOT_REST.items()
]
"""Command lines of TimeLLM_ETTh1_ETTh2, of run_pretrain.py."""
