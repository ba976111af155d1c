import pandas as pd

from results.document.labels import Labels, box_of, shared_area


def test_names_of_points_that_lie_close_do_not_overlap():
    rows = [
        {"seconds_per_epoch": 100.0 + shift, "val_mse": 0.40 + shift / 1000, "name": name}
        for shift, name in enumerate(["exact, baseline", "plan-a", "plan-b", "fastest"])
    ]
    points = pd.DataFrame(rows)
    labels = Labels(pd.Series([20.0, 500.0]), (0.38, 0.45))

    boxes = []
    for _, row in points.iterrows():
        place = labels.place(row, row["name"], "bottom left")
        boxes.append(labels._taken[-1])
        assert place.split()[0] in ("bottom", "top", "middle")

    assert all(shared_area(one, other) == 0 for index, one in enumerate(boxes) for other in boxes[:index])


def test_a_name_keeps_its_preferred_place_where_it_is_free():
    labels = Labels(pd.Series([10.0, 100.0]), (0.3, 0.5))
    row = pd.Series({"seconds_per_epoch": 30.0, "val_mse": 0.4})

    assert labels.place(row, "plan-a", "top center") == "top center"
    assert box_of(10, 10, "ab<br>c", "top right")[3] > box_of(10, 10, "ab", "top right")[3]
